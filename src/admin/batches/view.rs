//! Batches as the API shows them.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::batch::{BatchKind, BatchState, Figures};
use crate::domain::TxSignature;

/// Results in one page at most.
pub const RESULTS_PER_PAGE_MAX: u16 = 1_000;

/// A batch with its figures.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct BatchView {
    pub id: Uuid,
    #[sqlx(try_from = "String")]
    pub kind: BatchKind,
    #[sqlx(try_from = "String")]
    pub state: BatchState,
    /// The admin; `None` for a sweep.
    pub requested_by: Option<String>,
    /// Serial of the meter to which it is limited; `None`: all meters.
    #[sqlx(rename = "serial")]
    pub meter_id: Option<String>,
    pub owner: Option<String>,
    pub ending_before: Option<DateTime<Utc>>,
    pub include_failed: bool,
    pub requested_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    #[sqlx(flatten)]
    pub figures: Figures,
    pub error: Option<String>,
}

/// The columns of a [`BatchView`].
macro_rules! view {
    ($rest:literal) => {
        concat!(
            "SELECT batch.id, batch.kind, batch.state, batch.requested_by, meter.serial, batch.owner,
                    batch.ending_before, batch.include_failed, batch.requested_at, batch.started_at,
                    batch.finished_at, batch.total_readings, batch.successful_mints,
                    batch.failed_mints - batch.waiting_mints AS failed_mints, batch.waiting_mints, batch.error
             FROM batches AS batch
             LEFT JOIN meters AS meter ON meter.id = batch.meter
             ",
            $rest
        )
    };
}

pub async fn find(pool: &PgPool, batch: Uuid) -> sqlx::Result<Option<BatchView>> {
    sqlx::query_as(view!("WHERE batch.id = $1"))
        .bind(batch)
        .fetch_optional(pool)
        .await
}

/// The newest sweep that has ended, with or without readings; `None` before the first one.
pub async fn last_sweep(pool: &PgPool) -> sqlx::Result<Option<BatchView>> {
    sqlx::query_as(view!(
        "WHERE batch.kind = 'sweep'
           AND batch.finished_at IS NOT NULL
         ORDER BY batch.id DESC
         LIMIT 1"
    ))
    .fetch_optional(pool)
    .await
}

/// The newest batches first. Sweeps that found nothing are left out; [`last_sweep`] returns the newest of them.
pub async fn recent(pool: &PgPool, limit: u16) -> sqlx::Result<Vec<BatchView>> {
    sqlx::query_as(view!(
        "WHERE batch.kind = 'trigger' OR batch.total_readings > 0
         ORDER BY batch.id DESC
         LIMIT $1"
    ))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

/// The outcome of one reading.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct BatchResult {
    pub ordinal: i64,
    pub reading: Uuid,
    pub success: bool,
    pub waiting: bool,
    /// Signature of the mint transaction that pays the reading.
    pub signature: Option<TxSignature>,
    pub error: Option<String>,
}

/// Some results in the order in which they became known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsPage {
    pub results: Vec<BatchResult>,
    /// Where to continue: more results exist, or may come. `None` at the end of a batch that has ended.
    pub next: Option<i64>,
}

/// A page of the results behind `after`; `limit` is clamped to 1 to [`RESULTS_PER_PAGE_MAX`]. The caller must have read
/// `is_ended` before this call: results that are added in between are then followed by a further page.
pub async fn results(
    pool: &PgPool,
    batch: Uuid,
    is_ended: bool,
    after: i64,
    limit: u16,
) -> sqlx::Result<ResultsPage> {
    let limit = limit.clamp(1, RESULTS_PER_PAGE_MAX);
    let mut results: Vec<BatchResult> = sqlx::query_as(
        "SELECT ordinal, reading, success, waiting, signature, error
         FROM batch_readings
         WHERE batch = $1
           AND ordinal > $2
         ORDER BY ordinal
         LIMIT $3",
    )
    .bind(batch)
    .bind(after)
    // One more than the page holds, to know whether there is a next page.
    .bind(i64::from(limit) + 1)
    .fetch_all(pool)
    .await?;
    let is_last = results.len() <= usize::from(limit);
    results.truncate(usize::from(limit));
    let last = results.last().map_or(after, |last| last.ordinal);
    Ok(ResultsPage {
        results,
        next: (!is_last || !is_ended).then_some(last),
    })
}
