//! The waiting work and the state of the ledger breaker, for metrics and the status page. Reads only.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::settings::StoredSettings;
use crate::ledger::{MINT_TIME_TARGET, ReadingCounts};

/// The unminted readings, and what they wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// The settings that hold readings back.
    pub stored: StoredSettings,
    /// All accepted readings, by state.
    pub readings: ReadingCounts,
    pub waiting: WaitingReadings,
    pub queue: QueueDepth,
    /// `None` before the ledger is set up.
    pub breaker: Option<BreakerView>,
    /// Landed mints of our authority that the ledger lacks and no admin has adopted or booked.
    pub mismatches: i64,
    /// When the oldest event without a sequence number was written.
    pub oldest_outbox_event_at: Option<DateTime<Utc>>,
    pub feed_last_seq: i64,
}

/// Unminted readings, by what they wait for.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct WaitingReadings {
    /// Pending readings that the toggle or the roll-out holds back.
    pub held: i64,
    /// Readings that have waited for the service for longer than [`MINT_TIME_TARGET`].
    pub overdue: i64,
    /// When the oldest reading was accepted that waits for the service and not for a person: neither held nor failed.
    pub oldest_waiting_at: Option<DateTime<Utc>>,
}

impl WaitingReadings {
    /// Only a partial roll-out takes a scan of the unminted readings. If all pending readings are held, or none is, the stored
    /// counts already contain the number.
    async fn read(
        connection: &mut PgConnection,
        stored: &StoredSettings,
        readings: &ReadingCounts,
    ) -> sqlx::Result<WaitingReadings> {
        let query = |statement: &'static str| {
            sqlx::query_as::<_, WaitingReadings>(statement)
                .bind(MINT_TIME_TARGET)
                .bind(stored.changed_at)
        };
        match stored.settings.buckets_minted() {
            0 => {
                let waiting = query(
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
                // All waiting readings minus the recent ones: one statement, and so one snapshot.
                query(
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
                query(
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

/// The jobs of the queue, by state.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct QueueDepth {
    pub due: i64,
    pub scheduled: i64,
    pub retrying: i64,
    /// Taken by a worker and not finished.
    pub running: i64,
    /// Dead-lettered jobs of the last week.
    pub dead: i64,
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// When the job was taken that a worker has held for longest.
    pub oldest_running_at: Option<DateTime<Utc>>,
}

/// The ledger breaker, which all processes share.
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
    /// The cost grows with the waiting work and not with the history: each statement reads a partial index or one row.
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
