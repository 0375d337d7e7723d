//! Readings by state, exact at every moment and without a scan of all readings.
//!
//! Every statement that changes readings appends what it changed (triggers of the schema); the resolver folds that into one row
//! for each state. One statement reads both together, so a sum never counts a reading twice or not at all.

use sqlx::{FromRow, PgPool};

/// Changes folded in one statement.
const CHANGES_PER_STEP: i64 = 10_000;

/// Number of accepted readings in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub struct ReadingCounts {
    pub pending: i64,
    pub submitted: i64,
    pub minted: i64,
    pub finalized: i64,
    pub failed: i64,
    pub quarantined: i64,
}

/// The current counts as a relation `(state, readings)` with several rows a state: the folded counts and the changes since. A
/// statement reads both at once, so that a reading never counts twice or not at all.
macro_rules! counted_readings {
    () => {
        "(
             SELECT state, readings FROM reading_counts
             UNION ALL
             SELECT state, change FROM reading_count_changes
         )"
    };
}
pub(crate) use counted_readings;

impl ReadingCounts {
    pub async fn read(executor: impl sqlx::PgExecutor<'_>) -> sqlx::Result<ReadingCounts> {
        sqlx::query_as(concat!(
            "SELECT COALESCE(sum(readings) FILTER (WHERE state = 'pending'), 0)::BIGINT AS pending,
                    COALESCE(sum(readings) FILTER (WHERE state = 'submitted'), 0)::BIGINT AS submitted,
                    COALESCE(sum(readings) FILTER (WHERE state = 'minted'), 0)::BIGINT AS minted,
                    COALESCE(sum(readings) FILTER (WHERE state = 'finalized'), 0)::BIGINT AS finalized,
                    COALESCE(sum(readings) FILTER (WHERE state = 'failed'), 0)::BIGINT AS failed,
                    COALESCE(sum(readings) FILTER (WHERE state = 'quarantined'), 0)::BIGINT AS quarantined
             FROM ",
            counted_readings!(),
            " AS counted",
        ))
        .fetch_one(executor)
        .await
    }

    /// Readings that are not minted or finalized.
    pub fn unminted(&self) -> i64 {
        self.pending + self.submitted + self.failed + self.quarantined
    }

    /// All readings that were ever accepted.
    pub fn accepted(&self) -> i64 {
        self.pending
            + self.submitted
            + self.minted
            + self.finalized
            + self.failed
            + self.quarantined
    }
}

/// Folds what has been appended; several processes may do so at once.
pub async fn fold(pool: &PgPool) -> sqlx::Result<()> {
    loop {
        let folded: i64 = sqlx::query_scalar(
            "WITH folded AS (
                 DELETE FROM reading_count_changes
                 WHERE id IN (
                     SELECT id
                     FROM reading_count_changes
                     ORDER BY id
                     LIMIT $1
                     -- Two Resolvers may overlap for a moment: each takes what the other has not.
                     FOR UPDATE SKIP LOCKED
                 )
                 RETURNING state, change
             ), counted AS (
                 INSERT INTO reading_counts (state, readings)
                 SELECT state, sum(change)
                 FROM folded
                 GROUP BY state
                 ORDER BY state
                 ON CONFLICT (state) DO UPDATE
                 SET readings = reading_counts.readings + EXCLUDED.readings
             )
             SELECT count(*) FROM folded",
        )
        .bind(CHANGES_PER_STEP)
        .fetch_one(pool)
        .await?;
        if folded < CHANGES_PER_STEP {
            return Ok(());
        }
    }
}
