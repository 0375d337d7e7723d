//! A batch, its filter and its figures.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use uuid::Uuid;

/// What starts a batch.
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

/// Only a database of a newer version can contain such a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind or state of a batch that this version knows")]
pub struct UnknownWord(String);

/// Which unminted readings a trigger mints; by default all of them, except those that were accepted after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// How many readings, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Claimed so far.
    pub total: u64,
    pub successful: u64,
    pub failed: u64,
}

impl Figures {
    /// Readings whose outcome is known.
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
    /// Readings that were accepted later are left out; otherwise the batch might never end.
    pub requested_at: DateTime<Utc>,
    /// The number of the job that may start the next slice.
    pub slice: i32,
    /// For how many milliseconds its runs have made no progress.
    pub idle_ms: i64,
    /// Why it claims no more readings although it has not ended yet.
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

/// A stored word as a kind or state.
pub(super) fn word<T: FromStr<Err = UnknownWord>>(row: &PgRow, column: &str) -> sqlx::Result<T> {
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(|error: UnknownWord| sqlx::Error::Decode(Box::new(error)))
}
