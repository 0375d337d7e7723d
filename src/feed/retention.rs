//! Drops events that are older than the retention limit, a whole partition at a time.
//!
//! Invariant: an event that is younger than the limit is never dropped, and readers learn what was dropped:
//! `feed_head.oldest_seq` rises in the same transaction, so a reader sees either the events or the gap. The partition that takes
//! the next number is never dropped.
//!
//! A partition is dropped once its newest event is too old. On a quiet feed a partition would take years to fill, so the newest
//! one is cut after a [`Retention::span`]: it ends at the newest number, and the empty rest of its range becomes the next
//! partition. Events are kept for at most the limit and one span.
//!
//! Dropping and cutting lock `events` for a moment, because Postgres requires it (`DETACH … CONCURRENTLY` waits for every reader
//! in two transactions, and the new `oldest_seq` cannot be part of them). The wait for that lock is bounded, and so is the delay
//! of others: readers of the log and the sequencer wait for at most [`LOCK_LIMIT`], then the attempt is abandoned until the next
//! round. The files themselves are removed after the lock is released.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::event::Seq;
use super::head;
use super::partitions::{self, Partition};
use crate::db;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::names;

/// How often partitions are checked. It needs no jitter, since one process does it.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// How long an attempt waits for the lock on `events` and blocks others meanwhile. A page of the log takes a few milliseconds.
const LOCK_LIMIT: &str = "200ms";
/// Most partitions dropped in one round: after a long pause the backlog takes several rounds.
const DROPS_PER_ROUND_MAX: usize = 100;
/// Most events in a partition that is cut: the cut reads them while `events` is locked, which takes a tenth of a second. A
/// partition with more fills up instead: a feed with this many events in a span fills a partition in little more time.
const CUT_EVENTS_MAX: i64 = 200_000;

/// Begins a transaction that changes the partitions.
const BEGIN: &str = "BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL statement_timeout = '5s'";

/// FEED_RETENTION_DAYS and the values derived from it.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    limit: Duration,
}

impl Retention {
    pub fn new(limit: Duration) -> Retention {
        Retention { limit }
    }

    /// The time that one partition covers: a thirty-second part of the limit, so that events are kept at most three per cent
    /// longer than required and a quiet feed has some thirty partitions; at least an hour.
    pub fn span(self) -> Duration {
        (self.limit / 32).max(Duration::from_secs(60 * 60))
    }
}

/// The outcome of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundOutcome {
    pub dropped: usize,
    pub cut: bool,
}

struct RetentionRounds {
    pool: PgPool,
    retention: Retention,
}

/// Runs a round a minute. When one exceeds `limit`, the next continues where it ended.
pub fn task(pool: PgPool, retention: Retention, limit: Duration) -> PeriodicTask {
    let timing = Timing::new("event retention", CHECK_EVERY).with_limit(limit);
    PeriodicTask::of_leader(timing, RetentionRounds { pool, retention })
}

impl Periodic for RetentionRounds {
    async fn run(&mut self) -> Result<(), RunError> {
        run_round(&self.pool, self.retention).await?;
        Ok(())
    }
}

/// Drops partitions that are too old, oldest first, and cuts the newest one if it is due. Safe while rounds and sequencers run in
/// other processes.
pub async fn run_round(pool: &PgPool, retention: Retention) -> sqlx::Result<RoundOutcome> {
    let mut outcome = RoundOutcome::default();
    while outcome.dropped < DROPS_PER_ROUND_MAX && drop_oldest(pool, retention).await? {
        outcome.dropped += 1;
    }
    outcome.cut = cut_newest(pool, retention).await?;
    Ok(outcome)
}

/// The oldest partition, unless it is the one that takes the next number.
async fn oldest(connection: &mut PgConnection, last_seq: Seq) -> sqlx::Result<Option<Partition>> {
    let partitions = partitions::attached(connection).await?;
    Ok(partitions
        .into_iter()
        .next()
        .filter(|oldest| oldest.to <= last_seq.get() + 1))
}

async fn drop_oldest(pool: &PgPool, retention: Retention) -> sqlx::Result<bool> {
    // Checked without a lock first: most rounds have nothing to do.
    let mut connection = pool.acquire().await?;
    let last_seq = head::last_seq(&mut *connection).await?;
    let Some(candidate) = oldest(&mut connection, last_seq).await? else {
        return Ok(false);
    };
    if !is_too_old(&mut connection, &candidate, retention).await? {
        return Ok(false);
    }
    drop(connection);
    let mut transaction = db::begin_with(pool, BEGIN).await?;
    let last_seq = head::lock(&mut transaction).await?;
    // Another process may have dropped it meanwhile.
    if oldest(&mut transaction, last_seq).await?.as_ref() != Some(&candidate) {
        return Ok(false);
    }
    limit_lock_wait(&mut transaction).await?;
    sqlx::query("UPDATE feed_head SET oldest_seq = GREATEST(oldest_seq, $1)")
        .bind(candidate.to)
        .execute(&mut *transaction)
        .await?;
    partitions::remove(&mut transaction, &candidate).await?;
    crate::failpoint!("feed.dropped");
    transaction.commit().await?;
    metrics::counter!(names::FEED_PARTITIONS_DROPPED).increment(1);
    tracing::info!(
        from = candidate.from,
        to = candidate.to,
        "dropped a partition of events: all are older than FEED_RETENTION_DAYS"
    );
    Ok(true)
}

/// Whether the partition's newest event is older than the limit. An empty one counts as too old.
async fn is_too_old(
    connection: &mut PgConnection,
    partition: &Partition,
    retention: Retention,
) -> sqlx::Result<bool> {
    let younger: Option<i64> = sqlx::query_scalar(
        "SELECT seq
         FROM (SELECT seq, sequenced_at FROM events WHERE seq >= $1 AND seq < $2 ORDER BY seq DESC LIMIT 1) AS newest
         WHERE sequenced_at >= clock_timestamp() - $3",
    )
    .bind(partition.from)
    .bind(partition.to)
    .bind(retention.limit)
    .fetch_optional(connection)
    .await?;
    Ok(younger.is_none())
}

async fn cut_newest(pool: &PgPool, retention: Retention) -> sqlx::Result<bool> {
    let mut connection = pool.acquire().await?;
    let last_seq = head::last_seq(&mut *connection).await?;
    if newest_to_cut(&mut connection, last_seq, retention)
        .await?
        .is_none()
    {
        return Ok(false);
    }
    let width =
        partitions::width(partitions::pace(&mut connection, last_seq, retention.span()).await?);
    drop(connection);
    let mut transaction = db::begin_with(pool, BEGIN).await?;
    let last_seq = head::lock(&mut transaction).await?;
    let Some(newest) = newest_to_cut(&mut transaction, last_seq, retention).await? else {
        return Ok(false);
    };
    limit_lock_wait(&mut transaction).await?;
    let at = last_seq.get() + 1;
    partitions::cut(&mut transaction, &newest, at, width).await?;
    crate::failpoint!("feed.cut");
    transaction.commit().await?;
    tracing::info!(
        from = newest.from,
        to = at,
        "cut a partition of events at the end of its span"
    );
    Ok(true)
}

/// The partition of the newest number, if it started more than a span ago, has few enough events to read quickly, and is not
/// full.
async fn newest_to_cut(
    connection: &mut PgConnection,
    last_seq: Seq,
    retention: Retention,
) -> sqlx::Result<Option<Partition>> {
    let partitions = partitions::attached(connection).await?;
    let Some(newest) = partitions
        .into_iter()
        .find(|partition| partition.holds(last_seq))
    else {
        return Ok(None);
    };
    let at = last_seq.get() + 1;
    if at == newest.to || at - newest.from > CUT_EVENTS_MAX {
        return Ok(None);
    }
    let is_due: Option<bool> = sqlx::query_scalar(
        "SELECT sequenced_at < clock_timestamp() - $2
         FROM events
         WHERE seq >= $1
         ORDER BY seq
         LIMIT 1",
    )
    .bind(newest.from)
    .bind(retention.span())
    .fetch_optional(connection)
    .await?;
    Ok(is_due.unwrap_or(false).then_some(newest))
}

async fn limit_lock_wait(transaction: &mut Transaction<'_, Postgres>) -> sqlx::Result<()> {
    sqlx::query("SELECT set_config('lock_timeout', $1, TRUE)")
        .bind(LOCK_LIMIT)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_short_compared_with_the_limit() {
        let hours = |hours| Duration::from_secs(hours * 3_600);
        let span = |days: u64| Retention::new(hours(24 * days)).span();
        assert_eq!(span(1), hours(1));
        assert_eq!(span(32), hours(24));
        assert_eq!(span(3_200), hours(2_400));
    }
}
