//! The sequencer: numbers committed events without gaps.
//!
//! Invariant: numbers are assigned in one order, each once, and a number becomes readable together with all lower ones. Kept by the
//! row lock on `feed_head` ([`head::lock`]) with which each of its transactions starts: a second sequencer, or one that was
//! suspended, waits there and then reads the newest number. That only one sequencer runs at a time ([`crate::db::run_as_leader`]) saves
//! work, nothing more.
//!
//! The sequencer never waits for writers: rows of an uncommitted transaction are invisible, however old it is, and get their
//! numbers after it commits.

use std::time::Duration;

use sqlx::PgPool;

use super::event::Seq;
use super::head;
use super::partitions;
use super::retention::Retention;
use crate::db;
use crate::outbox::{self, Topic, Wake, WakeUps};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// Most events in one transaction: bounds how long readers wait for the first of them.
const BATCH_EVENTS_MAX: i64 = 1_000;
/// Poll interval, for events whose wake-up was lost.
const POLL_EVERY: Duration = Duration::from_millis(400);

/// A sequencer that is frozen inside its transaction holds the lock on `feed_head`: the database server ends its session after
/// this time.
const BEGIN: &str = "BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '10s'";

/// Numbers committed events.
struct Sequencer {
    pool: PgPool,
    committed: WakeUps,
    /// Whether there may be events to number: at the start, after a wake-up, and while a run leaves some.
    may_have_events: bool,
    /// Whether the last run left events to number.
    left_events: bool,
    headroom: Headroom,
}

/// Numbers events when a transaction commits some, and on a period.
pub fn task(pool: PgPool, wake: &Wake, retention: Retention, limit: Duration) -> PeriodicTask {
    let sequencer = Sequencer {
        pool,
        committed: wake.outbox(),
        may_have_events: true,
        left_events: false,
        headroom: Headroom {
            until: None,
            span: retention.span(),
        },
    };
    let timing = Timing::new("event sequencer", POLL_EVERY).with_limit(limit);
    PeriodicTask::of_leader(timing, sequencer)
}

impl Periodic for Sequencer {
    /// Numbers one batch.
    async fn run(&mut self) -> Result<(), RunError> {
        self.left_events = false;
        // Checked first, because the lock on `feed_head` is an update and an idle service should write nothing.
        if !std::mem::take(&mut self.may_have_events) && !has_committed_events(&self.pool).await? {
            return Ok(());
        }
        let pool = &self.pool;
        if self.headroom.until.is_none() {
            let last_seq = head::last_seq(pool).await?;
            self.headroom.ensure(pool, last_seq).await?;
        }
        if let Some(moved) = move_committed(pool).await? {
            self.headroom.ensure(pool, moved.last_seq).await?;
            self.left_events = moved.events == BATCH_EVENTS_MAX;
            self.may_have_events = self.left_events;
        }
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        self.left_events.then_some(Duration::ZERO)
    }

    async fn woken(&mut self) {
        self.committed.next().await;
        self.may_have_events = true;
    }
}

/// Empty partitions for future numbers.
struct Headroom {
    /// The first number without a partition; `None` until it was read.
    until: Option<Seq>,
    /// The time that one partition should cover.
    span: Duration,
}

impl Headroom {
    /// Makes partitions if they are about to run out.
    async fn ensure(&mut self, pool: &PgPool, last_seq: Seq) -> sqlx::Result<()> {
        if self
            .until
            .is_none_or(|until| partitions::are_running_out(last_seq, until))
        {
            self.until = Some(partitions::make_ahead(pool, last_seq, self.span).await?);
        }
        Ok(())
    }
}

async fn has_committed_events(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox)")
        .fetch_one(pool)
        .await
}

struct Moved {
    events: i64,
    last_seq: Seq,
}

/// Moves one batch from `outbox` to `events`; `None` if there was nothing to move.
async fn move_committed(pool: &PgPool) -> sqlx::Result<Option<Moved>> {
    let mut transaction = db::begin_with(pool, BEGIN).await?;
    let last_seq = head::lock(&mut transaction).await?.get();
    crate::failpoint!("feed.fenced");
    let events: i64 = sqlx::query_scalar(
        "WITH moved AS (
             DELETE FROM outbox
             -- An array, so that Postgres uses the index whatever its statistics are for a table that is mostly empty.
             WHERE id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id LIMIT $2))
             RETURNING id, event_id, event_type, user_id, body, written_at
         ), numbered AS (
             INSERT INTO events (seq, event_id, event_type, user_id, body, written_at)
             SELECT $1 + row_number() OVER (ORDER BY id), event_id, event_type, user_id, body, written_at
             FROM moved
             RETURNING seq
         )
         SELECT count(*) FROM numbered",
    )
    .bind(last_seq)
    .bind(BATCH_EVENTS_MAX)
    .fetch_one(&mut *transaction)
    .await?;
    if events == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    let last_seq = last_seq + events;
    sqlx::query("UPDATE feed_head SET last_seq = $1")
        .bind(last_seq)
        .execute(&mut *transaction)
        .await?;
    outbox::notify(&mut transaction, Topic::Feed).await?;
    crate::failpoint!("feed.numbered");
    transaction.commit().await?;
    Ok(Some(Moved {
        events,
        last_seq: Seq::from_stored(last_seq),
    }))
}
