//! How much work waits, and whether the ledger lets it be done: for metrics and the status page. Reads only.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::settings::StoredSettings;
use crate::ledger::{MINT_PROMISE, ReadingCounts};

/// Readings that are not minted or finalized, and what stands before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// By which readings are held.
    pub stored: StoredSettings,
    /// All accepted readings, by state.
    pub readings: ReadingCounts,
    pub waiting: WaitingReadings,
    pub queue: QueueDepth,
    /// `None` before the ledger was set up.
    pub breaker: Option<BreakerView>,
    /// Landed mints of our authority that the ledger lacks and nobody has dealt with.
    pub mismatches: i64,
    /// When the oldest event without a number was written.
    pub oldest_outbox_event_at: Option<DateTime<Utc>>,
    pub feed_last_seq: i64,
}

/// What the unminted readings wait for.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct WaitingReadings {
    /// Pending ones that the toggle or the roll-out holds back.
    pub held: i64,
    /// Waiting like the oldest one below, and for longer than [`MINT_PROMISE`].
    pub overdue: i64,
    /// Acceptance of the oldest one that waits for the service and not for a person: neither held nor failed.
    pub oldest_waiting_at: Option<DateTime<Utc>>,
}

impl WaitingReadings {
    /// A backlog is looked through only under a roll-out: what is held altogether is counted already, and so is what waits
    /// altogether.
    async fn read(
        connection: &mut PgConnection,
        stored: &StoredSettings,
        readings: &ReadingCounts,
    ) -> sqlx::Result<WaitingReadings> {
        let ask = |statement: &'static str| {
            sqlx::query_as::<_, WaitingReadings>(statement)
                .bind(MINT_PROMISE)
                .bind(stored.changed_at)
        };
        match stored.settings.buckets_minted() {
            0 => {
                let waiting = ask(
                    "SELECT 0::BIGINT AS held,
                            count(*) FILTER (WHERE GREATEST(accepted_at, $2) < now() - $1) AS overdue,
                            min(accepted_at) AS oldest_waiting_at
                     FROM readings
                     -- Part of the predicate of the index readings_unminted.
                     WHERE state IN ('submitted', 'quarantined')",
                )
                .fetch_one(connection)
                .await?;
                Ok(WaitingReadings {
                    held: readings.pending,
                    ..waiting
                })
            }
            100 => {
                // All that wait without those that have not waited for long: one statement, and so one snapshot.
                ask(
                    "SELECT 0::BIGINT AS held,
                            CASE
                                WHEN $2 >= now() - $1 THEN 0
                                ELSE (
                                    SELECT COALESCE(sum(readings), 0)
                                    FROM (
                                        SELECT state, readings FROM reading_counts
                                        UNION ALL
                                        SELECT state, change FROM reading_count_changes
                                    ) AS counted
                                    WHERE state IN ('pending', 'submitted', 'quarantined')
                                ) - (
                                    SELECT count(*)
                                    FROM readings
                                    -- The predicate of the index readings_waiting.
                                    WHERE state IN ('pending', 'submitted', 'quarantined')
                                      AND accepted_at >= now() - $1
                                )
                            END::BIGINT AS overdue,
                            (
                                SELECT min(accepted_at)
                                FROM readings
                                WHERE state IN ('pending', 'submitted', 'quarantined')
                            ) AS oldest_waiting_at",
                )
                .fetch_one(connection)
                .await
            }
            buckets => {
                ask(
                    "SELECT count(*) FILTER (WHERE held) AS held,
                            count(*) FILTER (WHERE NOT held AND GREATEST(accepted_at, $2) < now() - $1) AS overdue,
                            min(accepted_at) FILTER (WHERE NOT held) AS oldest_waiting_at
                     FROM (
                         SELECT readings.accepted_at,
                                readings.state = 'pending' AND meters.rollout_bucket >= $3 AS held
                         FROM readings
                         JOIN meters ON meters.id = readings.meter
                         WHERE readings.state IN ('pending', 'submitted', 'quarantined')
                     ) AS unminted",
                )
                .bind(buckets)
                .fetch_one(connection)
                .await
            }
        }
    }
}

/// Jobs that no worker has taken yet, those that one has, and those that none ever will.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct QueueDepth {
    pub due: i64,
    pub scheduled: i64,
    pub retrying: i64,
    /// Taken by a worker and not finished.
    pub running: i64,
    /// Of the last week: jobs that can never be run.
    pub dead: i64,
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// When the job was taken that has been with a worker for longest.
    pub oldest_running_at: Option<DateTime<Utc>>,
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
        let stored = StoredSettings::read(&mut *connection).await?;
        let waiting = WaitingReadings::read(&mut connection, &stored, &readings).await?;
        let queue = sqlx::query_as(
            "SELECT waiting.*, held.*,
                    -- The predicate of the index jobs_dead.
                    (SELECT count(*) FROM apalis.jobs WHERE status = 'Killed') AS dead
             FROM (
                 SELECT count(*) FILTER (WHERE status = 'Pending' AND run_at <= now()) AS due,
                        count(*) FILTER (WHERE status = 'Pending' AND run_at > now()) AS scheduled,
                        count(*) FILTER (WHERE status = 'Failed') AS retrying,
                        min(run_at) FILTER (WHERE status = 'Pending' AND run_at <= now()) AS oldest_due_at
                 FROM apalis.jobs
                 -- The predicate of the index idx_apalis_jobs_fetch_partial.
                 WHERE status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)
             ) AS waiting, (
                 SELECT count(*) AS running, min(lock_at) AS oldest_running_at
                 FROM apalis.jobs
                 -- The predicate of the index jobs_held.
                 WHERE status IN ('Queued', 'Running')
             ) AS held",
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
            stored,
            readings,
            waiting,
            queue,
            breaker,
            mismatches,
            oldest_outbox_event_at,
            feed_last_seq,
        })
    }
}
