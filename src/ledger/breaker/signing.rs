//! Reads whether signing is allowed: rule 1's transaction calls this before it records.

use sqlx::{FromRow, PgConnection, PgPool};

use super::ledger_row::StoredBreaker;
use super::scan_request::ScanRequest;
use crate::domain::{LedgerBreakerState, NotScannedReason, SigningRefused};

#[derive(FromRow)]
struct Permission {
    #[sqlx(try_from = "String")]
    breaker: StoredBreaker,
    breaker_reason: Option<String>,
    identity_known: bool,
    history_scanned: bool,
}

/// `None`: signing is allowed. Until the caller's transaction ends, no process can open the breaker; a transaction that checks
/// after an opening sees it.
pub async fn signing_refusal(
    transaction: &mut PgConnection,
) -> sqlx::Result<Option<SigningRefused>> {
    let row: Option<Permission> = sqlx::query_as(
        "SELECT ledger.breaker, ledger.breaker_reason,
                (ledger.system_identifier, ledger.timeline, ledger.incarnation, ledger.server_start)
                    = (identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start)
                    AS identity_known,
                ledger.watermark_slot > 0 AS history_scanned
         FROM ledger, database_identity() AS identity
         -- An opening waits for the transactions that share the row or are queued for it: see LedgerRow::lock.
         FOR KEY SHARE OF ledger",
    )
    .fetch_optional(transaction)
    .await?;
    let Some(row) = row else {
        return Ok(Some(SigningRefused::Unbound));
    };
    if let LedgerBreakerState::Open { reason } = row.breaker.state(row.breaker_reason.clone()) {
        return Ok(Some(SigningRefused::BreakerOpen(reason)));
    }
    if !row.identity_known {
        return Ok(Some(SigningRefused::IdentityChanged));
    }
    Ok((!row.history_scanned).then(|| history_not_scanned(row.breaker_reason)))
}

/// Whether a scan that began after this request has read the history to its end. A process that has just started may find a ledger
/// that is behind the chain; it signs only after such a scan.
pub async fn scan_pending(
    pool: &PgPool,
    request: ScanRequest,
) -> sqlx::Result<Option<SigningRefused>> {
    let covered = request.is_covered(pool).await?;
    Ok((!covered).then_some(SigningRefused::ScanSinceStart))
}

/// `reason`: why the last scan failed, as [`note_scan_failure`] has stored it.
pub fn history_not_scanned(reason: Option<String>) -> SigningRefused {
    SigningRefused::HistoryNotScanned(match reason {
        Some(error) => NotScannedReason::LastScanFailed { error },
        None => NotScannedReason::FirstScanRunning,
    })
}

/// Stores why nothing can be signed yet. The first scan that reaches its end clears it.
pub(super) async fn note_scan_failure(pool: &PgPool, reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         SET breaker_reason = $1
         WHERE watermark_slot = 0
           AND breaker = 'closed'
           AND breaker_reason IS DISTINCT FROM $1",
    )
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}
