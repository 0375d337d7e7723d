//! Reports the age of the ledger's knowledge of the chain, for status, metrics and health. Reads only.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgExecutor, PgPool};

use crate::db::BigInt;
use crate::domain::TxSignature;

/// Unreadable transactions that are listed; the count has all.
const UNREADABLE_LISTED: i64 = 20;
/// Ten times the time between two scans: one that a provider's limit interrupts now and then stays below.
const STALE_AFTER: Duration = Duration::from_secs(600);

/// The last whole scan of the authority's history, and the one under way.
#[derive(Clone, Debug, FromRow)]
pub struct HistoryScanView {
    pub watermark_slot: BigInt,
    /// When the last whole scan began; `None` before the first.
    pub known_as_of: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// By the database's clock, since `known_as_of`; before the first whole scan, since the ledger was set up.
    pub age_secs: f64,
    /// Of the scan under way.
    pub began_at: Option<DateTime<Utc>>,
    pub head_slot: Option<BigInt>,
    pub cursor_slot: Option<BigInt>,
    pub listed: BigInt,
    /// Failures in a row. A provider's limit is a pause and counts as none.
    pub failures: i32,
    /// When the scan last stopped before its end, and why; both of the past once one is finished.
    pub failed_at: Option<DateTime<Utc>>,
    pub error: Option<String>,
    /// Transactions of the history that no endpoint shows in a form that this program can read.
    pub unreadable: BigInt,
}

impl HistoryScanView {
    /// `None` before the ledger is bound.
    pub async fn read<'c>(executor: impl PgExecutor<'c>) -> sqlx::Result<Option<HistoryScanView>> {
        sqlx::query_as(
            "SELECT ledger.watermark_slot, scan.known_as_of, scan.finished_at,
                    EXTRACT(EPOCH FROM now() - COALESCE(scan.known_as_of, scan.created_at))::DOUBLE PRECISION AS age_secs,
                    scan.began_at, scan.head_slot,
                    CASE WHEN scan.began_at IS NOT NULL THEN scan.cursor_slot END AS cursor_slot,
                    CASE WHEN scan.began_at IS NOT NULL THEN scan.listed ELSE 0 END AS listed,
                    scan.failures, scan.failed_at, scan.error,
                    -- The predicate of the index history_transactions_unreadable.
                    (SELECT count(*) FROM history_transactions WHERE problem IS NOT NULL) AS unreadable
             FROM ledger, history_scan AS scan",
        )
        .fetch_optional(executor)
        .await
    }

    /// The reason for which an operator must act; `None` while the scans keep up.
    pub fn staleness(&self) -> Option<String> {
        if self.age_secs < STALE_AFTER.as_secs_f64() {
            return None;
        }
        let since = self.known_as_of.map_or_else(
            || "was never read to its end".to_owned(),
            |moment| {
                format!(
                    "was last read to its end at {}",
                    moment.format("%Y-%m-%dT%H:%M:%SZ")
                )
            },
        );
        let error = self
            .error
            .as_deref()
            .unwrap_or("the scan is still under way");
        Some(format!("the authority's history {since}: {error}"))
    }
}

/// A transaction that holds the watermark down.
#[derive(Clone, Debug, FromRow)]
pub struct UnreadableTransaction {
    pub signature: TxSignature,
    pub slot: BigInt,
    pub problem: String,
    pub reads: i32,
    pub next_read_at: DateTime<Utc>,
}

impl UnreadableTransaction {
    /// The oldest ones.
    pub async fn list(pool: &PgPool) -> sqlx::Result<Vec<UnreadableTransaction>> {
        sqlx::query_as(
            "SELECT signature, slot, problem, reads, next_read_at
             FROM history_transactions
             WHERE problem IS NOT NULL
             ORDER BY slot, signature
             LIMIT $1",
        )
        .bind(UNREADABLE_LISTED)
        .fetch_all(pool)
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(age_secs: f64, error: Option<&str>) -> HistoryScanView {
        HistoryScanView {
            watermark_slot: BigInt::default(),
            known_as_of: Some("2026-11-30T04:00:00Z".parse().unwrap()),
            finished_at: None,
            age_secs,
            began_at: None,
            head_slot: None,
            cursor_slot: None,
            listed: BigInt::default(),
            failures: 0,
            failed_at: None,
            error: error.map(str::to_owned),
            unreadable: BigInt::default(),
        }
    }

    #[test]
    fn an_old_scan_is_named_with_its_error_and_a_young_one_is_not() {
        assert_eq!(view(60.0, Some("a limit")).staleness(), None);
        let stale = view(601.0, Some("rpc-1 did not answer"))
            .staleness()
            .unwrap();
        assert!(
            stale.contains("2026-11-30T04:00:00Z") && stale.ends_with("rpc-1 did not answer"),
            "{stale}"
        );
        let running = view(601.0, None).staleness().unwrap();
        assert!(running.contains("under way"), "{running}");
    }
}
