//! The sequencer: numbers committed events without gaps.
//!
//! Invariant: numbers are given in one order, each once, and become readable together with everything before them. Kept by
//! the row lock on `feed_head` that begins each of its transactions: a second sequencer, or one that wakes up late, waits
//! there and then reads the newest number. That there is one sequencer at a time ([`crate::db::run_as_leader`]) only saves work.
//!
//! Writers are never waited for: rows of a transaction that has not committed, whatever its age, are not visible, and get
//! their numbers once they are.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::event::Seq;
use super::partitions;
use super::retention::Retention;
use crate::db::within;
use crate::outbox::{self, Topic, Wake};

/// Events numbered in one transaction: bounds how long its readers wait for the first of them.
const EVENTS_AT_ONCE: i64 = 1_000;
/// For events whose wake-up was lost.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// After an error, most often a database that restarts.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// A sequencer that is frozen inside its transaction holds the lock on `feed_head`: the server ends it after this time.
const BEGIN: &str = "BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '10s'";

/// Numbers events until `held` is cancelled. `limit` is that of one transaction: a session that falls silent must not stop
/// the feed.
pub async fn run(
    pool: PgPool,
    wake: Wake,
    retention: Retention,
    limit: Duration,
    held: CancellationToken,
) {
    let mut woken = wake.outbox();
    let mut room = Room {
        until: None,
        span: retention.span(),
        limit,
    };
    loop {
        // Seen before looking: whatever commits from here on wakes us again.
        woken.borrow_and_update();
        if let Err(error) = drain(&pool, &held, &mut room).await {
            tracing::warn!(%error, "events could not be numbered; trying again");
            tokio::select! {
                () = held.cancelled() => return,
                () = tokio::time::sleep(PAUSE_AFTER_ERROR) => continue,
            }
        }
        if !wait_for_work(&pool, limit, &mut woken, &held).await {
            return;
        }
    }
}

/// Waits until there may be something to number; false when `held` ended.
async fn wait_for_work(
    pool: &PgPool,
    limit: Duration,
    woken: &mut watch::Receiver<u64>,
    held: &CancellationToken,
) -> bool {
    loop {
        tokio::select! {
            () = held.cancelled() => return false,
            // The caller keeps the sender alive.
            _ = woken.changed() => return true,
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
        // An idle service writes nothing: the fence is an update.
        if within(limit, has_committed_events(pool))
            .await
            .unwrap_or(true)
        {
            return true;
        }
    }
}

/// Moves batches until nothing is left.
async fn drain(pool: &PgPool, held: &CancellationToken, room: &mut Room) -> sqlx::Result<()> {
    if room.until.is_none() {
        let head = sqlx::query_scalar("SELECT last_seq FROM feed_head").fetch_one(pool);
        let last_seq: i64 = within(room.limit, head).await?;
        room.make(pool, Seq::from_stored(last_seq)).await?;
    }
    while !held.is_cancelled() {
        let Some(moved) = within(room.limit, move_committed(pool)).await? else {
            return Ok(());
        };
        room.make(pool, moved.last_seq).await?;
        if moved.events < EVENTS_AT_ONCE {
            return Ok(());
        }
    }
    Ok(())
}

/// Partitions for the numbers ahead.
struct Room {
    /// The first number without a partition; `None` before it was looked for.
    until: Option<Seq>,
    /// What one partition is meant for.
    span: Duration,
    /// Of one transaction.
    limit: Duration,
}

impl Room {
    async fn make(&mut self, pool: &PgPool, last_seq: Seq) -> sqlx::Result<()> {
        if self
            .until
            .is_none_or(|until| partitions::is_short_of_room(last_seq, until))
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

/// One batch from `outbox` to `events`; `None` when there was nothing.
async fn move_committed(pool: &PgPool) -> sqlx::Result<Option<Moved>> {
    let mut transaction = pool.begin_with(BEGIN).await?;
    // The fence. Later statements see what was committed before the lock was won.
    let last_seq: i64 =
        sqlx::query_scalar("UPDATE feed_head SET last_seq = last_seq RETURNING last_seq")
            .fetch_one(&mut *transaction)
            .await?;
    crate::failpoint!("feed.fenced");
    let events: i64 = sqlx::query_scalar(
        "WITH moved AS (
             DELETE FROM outbox
             -- An array, so that the rows are found by the index whatever the statistics say of a table that is
             -- mostly empty.
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
    .bind(EVENTS_AT_ONCE)
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
