//! Closes the ledger breaker, on evidence only.

use sqlx::PgPool;

use super::ledger_row::{BreakerSnapshot, LedgerRow};
use crate::db::BigInt;
use crate::domain::LedgerBreakerState;

/// Sets the finalized height that must pass before a changed database may sign again.
pub async fn set_closing_height(pool: &PgPool, height: u64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         SET breaker_closes_after_height = $1
         WHERE breaker = 'identity'
           AND breaker_closes_after_height IS NULL",
    )
    .bind(BigInt::from(height))
    .execute(pool)
    .await?;
    Ok(())
}

/// Called after a scan that began with this breaker at this finalized height and found only known mints: closes the breaker, unless
/// something changed meanwhile or an unknown mint is unresolved. Returns the state afterwards.
pub(super) async fn close_after_scan(
    pool: &PgPool,
    before: &BreakerSnapshot,
    finalized_height: u64,
) -> sqlx::Result<LedgerBreakerState> {
    if before.may_close_at(finalized_height) && close(pool, before).await? {
        tracing::info!("ledger breaker closed: everything that landed is known");
    }
    Ok(LedgerRow::read(pool).await?.state())
}

/// Compare-and-set: an opening since the scan began, another database, or an unresolved mint keep it open.
async fn close(pool: &PgPool, before: &BreakerSnapshot) -> sqlx::Result<bool> {
    let closed = sqlx::query(
        "UPDATE ledger
         SET breaker = 'closed', breaker_reason = NULL, breaker_opened_at = NULL, breaker_closes_after_height = NULL
         FROM database_identity() AS identity
         WHERE ledger.breaker = $1
           AND ledger.breaker_opened_at IS NOT DISTINCT FROM $2
           AND ledger.breaker_closes_after_height IS NOT DISTINCT FROM $3
           AND (ledger.system_identifier, ledger.timeline, ledger.incarnation, ledger.server_start)
               = (identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start)
           AND NOT EXISTS (SELECT FROM foreign_mints WHERE booked_reason IS NULL)",
    )
    .bind(before.breaker.as_str())
    .bind(before.breaker_opened_at)
    .bind(before.breaker_closes_after_height)
    .execute(pool)
    .await?;
    Ok(closed.rows_affected() == 1)
}
