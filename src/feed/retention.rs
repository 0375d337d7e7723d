//! How long events are kept: partitions that nobody needs any more are dropped whole.
//!
//! Invariant: an event that is younger than the limit is never dropped, and what is dropped is told: `feed_head.oldest_seq`
//! rises in the same transaction, so a reader sees either the events or the gap. The partition that takes the next number
//! is never dropped.
//!
//! A partition goes once its newest event is too old. So that this comes to pass on a quiet feed too, where a partition
//! would take years to fill, the newest one is cut after a [`Retention::span`]: it ends at the newest number, and the empty
//! rest of its range becomes the next partition. Events are kept for the limit and one span at most.
//!
//! Both lock `events` for a moment, since that is how Postgres takes a partition away (`DETACH … CONCURRENTLY` waits for
//! every reader in two transactions, and cannot be one with the new `oldest_seq`). The wait for that lock is bounded, and
//! what is held up meanwhile is bounded by it: readers of the log and the sequencer wait for [`LOCK_LIMIT`] at most, then
//! the attempt is given up until the next round. The files themselves are removed after the lock is released.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::event::Seq;
use super::partitions::{self, Partition};
use crate::db::within;
use crate::telemetry::names;

/// How often partitions are looked at. A random part is not needed: one process does it.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long an attempt waits for the lock on `events`, and makes others wait. A page of the log takes a few milliseconds.
const LOCK_LIMIT: &str = "200ms";
/// Partitions dropped in one round: after a long pause the backlog goes in several.
const DROPS_AT_ONCE: usize = 100;
/// A cut reads the partition while it is locked, a tenth of a second for so many events. One that has more is left to fill
/// up: a feed that gives so many in a span fills a partition of its width in little more.
const CUT_EVENTS_MAX: i64 = 200_000;

/// Begins a change of the partitions.
const BEGIN: &str = "BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL statement_timeout = '5s'";

/// FEED_RETENTION_DAYS and what follows from it.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    limit: Duration,
}

impl Retention {
    pub fn new(limit: Duration) -> Retention {
        Retention { limit }
    }

    /// The time that one partition covers: a thirty-second part of the limit, so that events are kept three per cent longer
    /// than they must be and a quiet feed has some thirty partitions; an hour at least.
    pub fn span(self) -> Duration {
        (self.limit / 32).max(Duration::from_secs(60 * 60))
    }
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    pub dropped: usize,
    pub cut: bool,
}

/// Looks at the partitions from time to time, until `held` is cancelled. What a round does not get done within `limit` the
/// next one goes on with.
pub async fn run(pool: PgPool, retention: Retention, limit: Duration, held: CancellationToken) {
    loop {
        let round = within(limit, tend(&pool, retention));
        if let Some(Err(error)) = held.run_until_cancelled(round).await {
            tracing::warn!(%error, "old events could not be dropped; trying again in a minute");
        }
        tokio::select! {
            () = held.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// One round: drops what is too old, oldest first, and cuts the newest partition when it is time. Safe beside other rounds
/// in other processes, and beside sequencers.
pub async fn tend(pool: &PgPool, retention: Retention) -> sqlx::Result<Tended> {
    let mut tended = Tended::default();
    while tended.dropped < DROPS_AT_ONCE && drop_oldest(pool, retention).await? {
        tended.dropped += 1;
    }
    tended.cut = cut_newest(pool, retention).await?;
    Ok(tended)
}

/// The oldest partition and the newest number, when that partition is not the one that takes the next number.
async fn oldest(connection: &mut PgConnection, last_seq: Seq) -> sqlx::Result<Option<Partition>> {
    let partitions = partitions::attached(connection).await?;
    Ok(partitions
        .into_iter()
        .next()
        .filter(|oldest| oldest.to <= last_seq.get() + 1))
}

async fn drop_oldest(pool: &PgPool, retention: Retention) -> sqlx::Result<bool> {
    // Looked at without a lock first: most rounds have nothing to do.
    let mut connection = pool.acquire().await?;
    let last_seq = head(&mut connection).await?;
    let Some(candidate) = oldest(&mut connection, last_seq).await? else {
        return Ok(false);
    };
    if !is_too_old(&mut connection, &candidate, retention).await? {
        return Ok(false);
    }
    drop(connection);
    let mut transaction = pool.begin_with(BEGIN).await?;
    let last_seq = fence(&mut transaction).await?;
    // Another process may have been quicker.
    if oldest(&mut transaction, last_seq).await?.as_ref() != Some(&candidate) {
        return Ok(false);
    }
    bound_waiting(&mut transaction).await?;
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

/// Whether its newest event is older than the limit; an empty one is, once its numbers have been given.
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
    let last_seq = head(&mut connection).await?;
    if newest_to_cut(&mut connection, last_seq, retention)
        .await?
        .is_none()
    {
        return Ok(false);
    }
    let width =
        partitions::width(partitions::pace(&mut connection, last_seq, retention.span()).await?);
    drop(connection);
    let mut transaction = pool.begin_with(BEGIN).await?;
    let last_seq = fence(&mut transaction).await?;
    let Some(newest) = newest_to_cut(&mut transaction, last_seq, retention).await? else {
        return Ok(false);
    };
    bound_waiting(&mut transaction).await?;
    let at = last_seq.get() + 1;
    partitions::cut(&mut transaction, &newest, at, width).await?;
    crate::failpoint!("feed.cut");
    transaction.commit().await?;
    tracing::info!(
        from = newest.from,
        to = at,
        "a partition of events ends with its time"
    );
    Ok(true)
}

/// The partition of the newest number, when it began more than a span ago, can be read in a moment, and is not full.
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
    let began_long_ago: Option<bool> = sqlx::query_scalar(
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
    Ok(began_long_ago.unwrap_or(false).then_some(newest))
}

async fn head(connection: &mut PgConnection) -> sqlx::Result<Seq> {
    let last_seq = sqlx::query_scalar("SELECT last_seq FROM feed_head")
        .fetch_one(connection)
        .await?;
    Ok(Seq::from_stored(last_seq))
}

/// Nobody numbers from here on, until this transaction ends.
async fn fence(transaction: &mut Transaction<'_, Postgres>) -> sqlx::Result<Seq> {
    let last_seq =
        sqlx::query_scalar("UPDATE feed_head SET last_seq = last_seq RETURNING last_seq")
            .fetch_one(&mut **transaction)
            .await?;
    Ok(Seq::from_stored(last_seq))
}

async fn bound_waiting(transaction: &mut Transaction<'_, Postgres>) -> sqlx::Result<()> {
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
    fn a_span_is_short_beside_the_limit() {
        let hours = |hours| Duration::from_secs(hours * 3_600);
        let span = |days: u64| Retention::new(hours(24 * days)).span();
        assert_eq!(span(1), hours(1));
        assert_eq!(span(32), hours(24));
        assert_eq!(span(3_200), hours(2_400));
    }
}
