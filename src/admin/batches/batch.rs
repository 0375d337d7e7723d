//! A batch, its filter and its figures.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use crate::db::BigInt;

/// The cause of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// The clock: mints stragglers, and respects the toggle, the roll-out and backoffs.
    Sweep,
    /// An admin: mints every unminted reading that passes the filter, at once.
    Trigger,
}

impl BatchKind {
    pub fn as_str(self) -> &'static str {
        match self {
            BatchKind::Sweep => "sweep",
            BatchKind::Trigger => "trigger",
        }
    }
}

impl TryFrom<String> for BatchKind {
    type Error = UnknownWord;

    fn try_from(word: String) -> Result<BatchKind, UnknownWord> {
        match word.as_str() {
            "sweep" => Ok(BatchKind::Sweep),
            "trigger" => Ok(BatchKind::Trigger),
            _ => Err(UnknownWord(word)),
        }
    }
}

/// The progress of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// No worker has started it.
    Queued,
    Running,
    /// It processed all its readings, whatever their outcomes.
    Completed,
    /// It ended early.
    Failed,
}

impl BatchState {
    pub fn as_str(self) -> &'static str {
        match self {
            BatchState::Queued => "queued",
            BatchState::Running => "running",
            BatchState::Completed => "completed",
            BatchState::Failed => "failed",
        }
    }

    pub fn is_ended(self) -> bool {
        match self {
            BatchState::Queued | BatchState::Running => false,
            BatchState::Completed | BatchState::Failed => true,
        }
    }
}

impl TryFrom<String> for BatchState {
    type Error = UnknownWord;

    fn try_from(word: String) -> Result<BatchState, UnknownWord> {
        match word.as_str() {
            "queued" => Ok(BatchState::Queued),
            "running" => Ok(BatchState::Running),
            "completed" => Ok(BatchState::Completed),
            "failed" => Ok(BatchState::Failed),
            _ => Err(UnknownWord(word)),
        }
    }
}

/// Only a database of a newer version can contain such a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind or state of a batch that this version knows")]
pub struct UnknownWord(String);

/// Selects the unminted readings that a trigger mints; by default all of them, except those that were accepted after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct BatchFilter {
    /// Id of the meter's row.
    pub meter: Option<i64>,
    /// Owner of the meters.
    pub owner: Option<String>,
    /// Only readings whose interval ends before.
    pub ending_before: Option<DateTime<Utc>>,
    /// Failed ones too: they are retried as by an admin's retry.
    pub include_failed: bool,
}

/// Counts of readings by outcome. In the table, `failed_mints` includes the waiting ones, as earlier versions count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Figures {
    /// Claimed so far.
    #[sqlx(rename = "total_readings", try_from = "BigInt")]
    pub total: u64,
    #[sqlx(rename = "successful_mints", try_from = "BigInt")]
    pub successful: u64,
    #[sqlx(rename = "failed_mints", try_from = "BigInt")]
    pub failed: u64,
    /// Not minted and not failed: see [`ReadingOutcome::Waiting`](super::ReadingOutcome).
    #[sqlx(rename = "waiting_mints", try_from = "BigInt")]
    pub waiting: u64,
}

impl Figures {
    /// Readings whose outcome is known.
    pub fn processed(self) -> u64 {
        self.successful + self.failed + self.waiting
    }
}

/// A batch as its worker loads it.
#[derive(Clone, Debug, FromRow)]
pub struct Batch {
    pub id: Uuid,
    #[sqlx(try_from = "String")]
    pub kind: BatchKind,
    #[sqlx(flatten)]
    pub filter: BatchFilter,
    /// Readings that were accepted later are left out; otherwise the batch might never end.
    pub requested_at: DateTime<Utc>,
    /// The number of the job that may start the next slice.
    pub slice: i32,
    /// For how many milliseconds its runs have made no progress.
    #[sqlx(try_from = "BigInt")]
    pub idle_ms: u64,
    /// Why it claims no more readings although it has not ended yet.
    pub error: Option<String>,
}
