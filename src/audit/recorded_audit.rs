//! Stored results of audits, for dashboards and alerts.

use crate::db;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

use super::checkpoints;
use super::report::AuditReport;

/// The result of an audit that ran with `--record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct RecordedAudit {
    pub finished_at: DateTime<Utc>,
    /// Differences between ledger and chain; 0: they agree.
    pub differences: i64,
}

impl RecordedAudit {
    /// The newest recorded audit; `None` before the first.
    pub async fn last(pool: &PgPool) -> sqlx::Result<Option<RecordedAudit>> {
        sqlx::query_as(
            "SELECT finished_at, differences FROM recorded_audits ORDER BY id DESC LIMIT 1",
        )
        .fetch_optional(pool)
        .await
    }
}

/// Stores the result of an audit of this database. A difference and the end of all checkpoints are stored together: if this fails,
/// neither is.
pub async fn record(pool: &PgPool, report: &AuditReport) -> sqlx::Result<()> {
    let mut transaction = db::begin(pool).await?;
    sqlx::query(
        "INSERT INTO recorded_audits (finished_at, slot, transactions, readings_minted, differences, scope)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(report.finished_at)
    .bind(bigint(report.slot))
    .bind(bigint(report.transactions))
    .bind(bigint(report.readings_minted))
    .bind(bigint(report.differences_found()))
    .bind(report.scope.as_str())
    .execute(&mut *transaction)
    .await?;
    if !report.ok {
        checkpoints::discard_all(&mut transaction).await?;
    }
    transaction.commit().await
}

/// As a BIGINT. No count and no slot reaches 2^63.
fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
