//! The query of unminted readings that claims and dry runs share.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::batch::BatchFilter;

/// The readings that a step selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimSource {
    /// Pending, due, rolled out while auto-mint is on, and without a live job.
    Stragglers,
    /// Pending, including those that the toggle, the roll-out or a backoff holds back.
    Pending,
    /// Failed: the claim retries them, so they are pending after it.
    Failed,
}

impl ClaimSource {
    /// The state as an SQL literal: with a parameter the planner could not use the partial index `readings_unminted`.
    pub(super) fn state_literal(self) -> &'static str {
        match self {
            ClaimSource::Stragglers | ClaimSource::Pending => "'pending'",
            ClaimSource::Failed => "'failed'",
        }
    }
}

/// The position from which a pass continues: behind this entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next_attempt_at: DateTime<Utc>,
    pub(super) reading: Uuid,
}

impl Cursor {
    pub(super) fn at(next_attempt_at: DateTime<Utc>, reading: Uuid) -> Cursor {
        Cursor {
            next_attempt_at,
            reading,
        }
    }
}

impl Default for Cursor {
    /// Before the first entry.
    fn default() -> Cursor {
        Cursor {
            next_attempt_at: DateTime::UNIX_EPOCH,
            reading: Uuid::nil(),
        }
    }
}

/// The unminted readings of one source to which a filter applies.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnmintedQuery<'a> {
    pub source: ClaimSource,
    pub filter: &'a BatchFilter,
    /// Readings that were accepted later are left out.
    pub accepted_until: DateTime<Utc>,
    pub after: Cursor,
    pub rows_max: u16,
}

impl UnmintedQuery<'_> {
    /// Pushes the statement; its rows come in the order of the index, starting behind the cursor.
    pub fn push(self, query: &mut QueryBuilder<Postgres>, select: &'static str) {
        query
            .push(select)
            .push("FROM readings WHERE state = ")
            .push(self.source.state_literal())
            .push(" AND (next_attempt_at, id) > (")
            .push_bind(self.after.next_attempt_at)
            .push(", ")
            .push_bind(self.after.reading)
            .push(") AND accepted_at <= ")
            .push_bind(self.accepted_until);
        if self.source == ClaimSource::Stragglers {
            query.push(" AND next_attempt_at <= now()");
        }
        if let Some(meter) = self.filter.meter {
            query.push(" AND meter = ").push_bind(meter);
        }
        if let Some(owner) = &self.filter.owner {
            query
                .push(" AND meter IN (SELECT theirs.id FROM meters AS theirs WHERE theirs.owner = ")
                .push_bind(owner.clone())
                .push(")");
        }
        if let Some(ending_before) = self.filter.ending_before {
            query.push(" AND interval_end < ").push_bind(ending_before);
        }
        query
            .push(" ORDER BY next_attempt_at, id LIMIT ")
            .push_bind(i64::from(self.rows_max));
    }
}
