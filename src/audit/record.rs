//! Verdicts that are kept, so that those who watch the service know them.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

use super::AuditReport;

/// The verdict of an audit that was told to record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct RecordedAudit {
    pub finished_at: DateTime<Utc>,
    /// Between ledger and chain; 0: they agree.
    pub differences: i64,
}

impl RecordedAudit {
    /// The one that was recorded last; `None` before the first.
    pub async fn last(pool: &PgPool) -> sqlx::Result<Option<RecordedAudit>> {
        sqlx::query_as(
            "SELECT finished_at, differences FROM recorded_audits ORDER BY id DESC LIMIT 1",
        )
        .fetch_optional(pool)
        .await
    }
}

/// Keeps what an audit of this database found. The audit itself never writes.
pub async fn record(pool: &PgPool, report: &AuditReport) -> sqlx::Result<()> {
    let differences = report.differences.len() as u64 + report.differences_beyond;
    sqlx::query(
        "INSERT INTO recorded_audits (finished_at, slot, transactions, readings_minted, differences)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(report.finished_at)
    .bind(report.slot as i64)
    .bind(report.transactions as i64)
    .bind(report.readings_minted as i64)
    .bind(differences as i64)
    .execute(pool)
    .await?;
    Ok(())
}
