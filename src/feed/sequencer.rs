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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::event::Seq;
use super::head;
use super::partitions;
use super::retention::Retention;
use crate::db::within;
use crate::outbox::{self, Topic, Wake};
use crate::periodic::Timing;

/// Most events in one transaction: bounds how long readers wait for the first of them.
const BATCH_EVENTS_MAX: i64 = 1_000;
/// Poll interval, for events whose wake-up was lost.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// For the list of periodic tasks.
pub const TIMING: Timing = Timing::new("event sequencer", POLL_EVERY);
/// Pause after an error, most often a database that restarts.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// A sequencer that is frozen inside its transaction holds the lock on `feed_head`: the database server ends its session after
/// this time.
const BEGIN: &str = "BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '10s'";

/// Numbers events until `stop` is cancelled. `limit` is that of one transaction: a session that hangs must not stop the feed.
pub async fn run(
    pool: PgPool,
    wake: Wake,
    retention: Retention,
    limit: Duration,
    stop: CancellationToken,
) {
    let mut woken = wake.outbox();
    let mut headroom = Headroom {
        until: None,
        span: retention.span(),
        limit,
    };
    loop {
        // Marked as seen before reading: a commit from here on wakes the sequencer again.
        woken.borrow_and_update();
        if let Err(error) = drain(&pool, &stop, &mut headroom).await {
            tracing::warn!(%error, "events could not be numbered; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE_AFTER_ERROR) => continue,
            }
        }
        if !wait_for_work(&pool, limit, &mut woken, &stop).await {
            return;
        }
    }
}

/// Waits until there may be events to number; false once `stop` is cancelled.
async fn wait_for_work(
    pool: &PgPool,
    limit: Duration,
    woken: &mut watch::Receiver<u64>,
    stop: &CancellationToken,
) -> bool {
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            // The caller keeps the sender alive.
            _ = woken.changed() => return true,
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
        // Checked first, because the lock on `feed_head` is an update and an idle service should write nothing.
        if within(limit, has_committed_events(pool))
            .await
            .unwrap_or(true)
        {
            return true;
        }
    }
}

/// Numbers batches until none is left.
async fn drain(
    pool: &PgPool,
    stop: &CancellationToken,
    headroom: &mut Headroom,
) -> sqlx::Result<()> {
    if headroom.until.is_none() {
        let last_seq = within(headroom.limit, head::last_seq(pool)).await?;
        headroom.ensure(pool, last_seq).await?;
    }
    while !stop.is_cancelled() {
        let Some(moved) = within(headroom.limit, move_committed(pool)).await? else {
            return Ok(());
        };
        headroom.ensure(pool, moved.last_seq).await?;
        if moved.events < BATCH_EVENTS_MAX {
            return Ok(());
        }
    }
    Ok(())
}

/// Empty partitions for future numbers.
struct Headroom {
    /// The first number without a partition; `None` until it was read.
    until: Option<Seq>,
    /// The time that one partition should cover.
    span: Duration,
    /// Time limit of one transaction.
    limit: Duration,
}

impl Headroom {
    /// Makes partitions if they are about to run out.
    async fn ensure(&mut self, pool: &PgPool, last_seq: Seq) -> sqlx::Result<()> {
        if self
            .until
            .is_none_or(|until| partitions::are_running_out(last_seq, until))
        {
            let made = partitions::make_ahead(pool, last_seq, self.span);
            self.until = Some(within(self.limit, made).await?);
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
    let mut transaction = pool.begin_with(BEGIN).await?;
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
