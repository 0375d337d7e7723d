//! A batch, its filter and its figures.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// What makes a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// The clock: stragglers, within everything that holds readings back.
    Sweep,
    /// An admin: everything unminted that the filter lets through, at once.
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

impl FromStr for BatchKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<BatchKind, UnknownWord> {
        match text {
            "sweep" => Ok(BatchKind::Sweep),
            "trigger" => Ok(BatchKind::Trigger),
            _ => Err(UnknownWord(text.to_owned())),
        }
    }
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchState {
    /// No worker has begun it.
    Queued,
    Running,
    /// It went to its end, whatever became of single readings.
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

impl FromStr for BatchState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<BatchState, UnknownWord> {
        match text {
            "queued" => Ok(BatchState::Queued),
            "running" => Ok(BatchState::Running),
            "completed" => Ok(BatchState::Completed),
            "failed" => Ok(BatchState::Failed),
            _ => Err(UnknownWord(text.to_owned())),
        }
    }
}

/// Only a newer version's database can hold such a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind or state of a batch that this version knows")]
pub struct UnknownWord(String);

/// Which unminted readings a trigger is for; all of them when nothing is said. Never those that were accepted after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchFilter {
    /// Row of the meter.
    pub meter: Option<i64>,
    /// Owner of the meters.
    pub owner: Option<String>,
    /// Only readings whose interval ends before.
    pub ending_before: Option<DateTime<Utc>>,
    /// Failed ones too: they are retried as by an admin's retry.
    pub include_failed: bool,
}

/// How many readings, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Claimed so far.
    pub total: u64,
    pub successful: u64,
    pub failed: u64,
}

impl Figures {
    /// Those whose outcome is known.
    pub fn processed(self) -> u64 {
        self.successful + self.failed
    }
}

impl<'r> FromRow<'r, PgRow> for Figures {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Figures> {
        let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
        Ok(Figures {
            total: count("total_readings")?,
            successful: count("successful_mints")?,
            failed: count("failed_mints")?,
        })
    }
}

/// What a worker needs to run a batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub id: Uuid,
    pub kind: BatchKind,
    pub filter: BatchFilter,
    /// Readings that were accepted later are not its affair, or it would never end.
    pub requested_at: DateTime<Utc>,
    /// Which of its jobs may hand it on.
    pub slice: i32,
    /// Milliseconds in a row that its runs spent without getting any further.
    pub idle_ms: i64,
    /// Why it claims no more, though it is not ended yet.
    pub error: Option<String>,
}

impl<'r> FromRow<'r, PgRow> for Batch {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Batch> {
        Ok(Batch {
            id: row.try_get("id")?,
            kind: word(row, "kind")?,
            filter: BatchFilter {
                meter: row.try_get("meter")?,
                owner: row.try_get("owner")?,
                ending_before: row.try_get("ending_before")?,
                include_failed: row.try_get("include_failed")?,
            },
            requested_at: row.try_get("requested_at")?,
            slice: row.try_get("slice")?,
            idle_ms: row.try_get("idle_ms")?,
            error: row.try_get("error")?,
        })
    }
}

/// A stored word as what it means.
pub(super) fn word<T: FromStr<Err = UnknownWord>>(row: &PgRow, column: &str) -> sqlx::Result<T> {
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(|error: UnknownWord| sqlx::Error::Decode(Box::new(error)))
}
