//! How much work waits, and whether the ledger lets it be done: for metrics and the status page. Reads only.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::ledger::ReadingCounts;

/// Readings that are not minted or finalized, and what stands before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// All accepted readings, by state.
    pub readings: ReadingCounts,
    pub unminted: UnmintedReadings,
    pub queue: QueueDepth,
    /// `None` before the ledger was set up.
    pub breaker: Option<BreakerView>,
    /// Landed mints of our authority that the ledger lacks and nobody has dealt with.
    pub mismatches: i64,
    /// When the oldest event without a number was written.
    pub oldest_outbox_event_at: Option<DateTime<Utc>>,
    pub feed_last_seq: i64,
}

/// Unminted readings by state.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct UnmintedReadings {
    pub pending: i64,
    pub submitted: i64,
    pub failed: i64,
    pub quarantined: i64,
    /// The part of `pending` that the toggle or the roll-out holds back.
    pub held: i64,
    /// Acceptance of the oldest one that waits for the service and not for a person: neither held nor failed.
    pub oldest_waiting_at: Option<DateTime<Utc>>,
}

impl UnmintedReadings {
    pub fn count(&self) -> i64 {
        self.pending + self.submitted + self.failed + self.quarantined
    }
}

/// Jobs that no worker has taken yet, and those that none ever will.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct QueueDepth {
    pub due: i64,
    pub scheduled: i64,
    pub retrying: i64,
    /// Of the last week: jobs that can never be run.
    pub dead: i64,
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// The ledger breaker, as all processes share it.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct BreakerView {
    /// `closed`, or why it is open: `identity`, `mismatch`.
    pub state: String,
    pub reason: Option<String>,
    pub opened_at: Option<DateTime<Utc>>,
}

impl BreakerView {
    pub fn is_open(&self) -> bool {
        self.state != "closed"
    }
}

impl Backlog {
    /// Costs what waits costs, not what was ever minted: each statement reads a partial index or one row.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Backlog> {
        let mut connection = pool.acquire().await?;
        let readings = ReadingCounts::read(&mut *connection).await?;
        let unminted = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
                    count(*) FILTER (WHERE state = 'submitted') AS submitted,
                    count(*) FILTER (WHERE state = 'failed') AS failed,
                    count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
                    count(*) FILTER (WHERE held) AS held,
                    min(accepted_at) FILTER (WHERE held IS NOT TRUE AND state <> 'failed') AS oldest_waiting_at
             FROM (
                 SELECT readings.state,
                        readings.accepted_at,
                        readings.state = 'pending' AND meters.rollout_bucket >= (
                            SELECT CASE WHEN auto_mint_enabled THEN auto_mint_percentage ELSE 0 END
                            FROM settings
                        ) AS held
                 FROM readings
                 JOIN meters ON meters.id = readings.meter
                 -- The predicate of the index readings_unminted.
                 WHERE readings.state IN ('pending', 'submitted', 'failed', 'quarantined')
             ) AS unminted",
        )
        .fetch_one(&mut *connection)
        .await?;
        let queue = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE status = 'Pending' AND run_at <= now()) AS due,
                    count(*) FILTER (WHERE status = 'Pending' AND run_at > now()) AS scheduled,
                    count(*) FILTER (WHERE status = 'Failed') AS retrying,
                    -- The predicate of the index jobs_dead.
                    (SELECT count(*) FROM apalis.jobs WHERE status = 'Killed') AS dead,
                    min(run_at) FILTER (WHERE status = 'Pending' AND run_at <= now()) AS oldest_due_at
             FROM apalis.jobs
             -- The predicate of the index idx_apalis_jobs_fetch_partial.
             WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)",
        )
        .fetch_one(&mut *connection)
        .await?;
        let breaker = sqlx::query_as(
            "SELECT breaker AS state, breaker_reason AS reason, breaker_opened_at AS opened_at
             FROM ledger",
        )
        .fetch_optional(&mut *connection)
        .await?;
        let (mismatches, oldest_outbox_event_at, feed_last_seq) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM foreign_mints WHERE booked_reason IS NULL),
                    (SELECT written_at FROM outbox ORDER BY id LIMIT 1),
                    (SELECT last_seq FROM feed_head)",
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok(Backlog {
            readings,
            unminted,
            queue,
            breaker,
            mismatches,
            oldest_outbox_event_at,
            feed_last_seq,
        })
    }
}
