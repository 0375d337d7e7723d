//! The waiting work and the state of the ledger breaker, for metrics and the status page. Reads only.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::auto_mint_settings::StoredSettings;
use super::waiting_readings::WaitingReadings;
use crate::ledger::{HistoryScanView, ProofProgress, ReadingCounts};

/// The unminted readings, and what they wait for.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// The settings that hold readings back.
    pub stored: StoredSettings,
    /// All accepted readings, by state.
    pub readings: ReadingCounts,
    pub waiting: WaitingReadings,
    pub queue: QueueDepth,
    /// `None` before the ledger is set up.
    pub breaker: Option<LedgerBreakerView>,
    /// Landed mints of our authority that the ledger lacks and no admin has adopted or booked.
    pub mismatches: i64,
    /// `None` before the ledger is set up.
    pub history: Option<HistoryScanView>,
    pub proofs: ProofProgress,
    /// When the oldest event without a sequence number was written.
    pub oldest_outbox_event_at: Option<DateTime<Utc>>,
    pub feed_last_seq: i64,
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
    /// When the job that a worker has held for longest was taken.
    pub oldest_running_at: Option<DateTime<Utc>>,
}

/// The state of the ledger breaker; an open one has its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerBreakerState {
    Closed,
    /// The database is another one than before, or its server was restarted.
    Identity,
    /// A landed mint that the ledger lacks or marked dead.
    Mismatch,
}

impl LedgerBreakerState {
    pub fn as_str(self) -> &'static str {
        match self {
            LedgerBreakerState::Closed => "closed",
            LedgerBreakerState::Identity => "identity",
            LedgerBreakerState::Mismatch => "mismatch",
        }
    }
}

/// A stored word that this version does not know as a state of the ledger breaker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state of the ledger breaker that this version knows")]
pub struct UnknownBreakerState(String);

impl TryFrom<String> for LedgerBreakerState {
    type Error = UnknownBreakerState;

    fn try_from(word: String) -> Result<LedgerBreakerState, UnknownBreakerState> {
        match word.as_str() {
            "closed" => Ok(LedgerBreakerState::Closed),
            "identity" => Ok(LedgerBreakerState::Identity),
            "mismatch" => Ok(LedgerBreakerState::Mismatch),
            _ => Err(UnknownBreakerState(word)),
        }
    }
}

/// The ledger breaker, which all processes share.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct LedgerBreakerView {
    #[sqlx(try_from = "String")]
    pub state: LedgerBreakerState,
    pub reason: Option<String>,
    pub opened_at: Option<DateTime<Utc>>,
}

impl LedgerBreakerView {
    pub fn is_open(&self) -> bool {
        self.state != LedgerBreakerState::Closed
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
        let proofs = ProofProgress::read(&mut *connection).await?;
        let (mismatches, oldest_outbox_event_at, feed_last_seq) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM foreign_mints WHERE booked_reason IS NULL),
                    (SELECT written_at FROM outbox ORDER BY id LIMIT 1),
                    (SELECT last_seq FROM feed_head)",
        )
        .fetch_one(&mut *connection)
        .await?;
        let history = HistoryScanView::read(&mut *connection).await?;
        Ok(Backlog {
            stored,
            readings,
            waiting,
            queue,
            breaker,
            mismatches,
            history,
            proofs,
            oldest_outbox_event_at,
            feed_last_seq,
        })
    }
}
