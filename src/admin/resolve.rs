//! Resolves a quarantined mint transaction.

use sqlx::PgPool;

use super::error::{AdminError, parse_reason};
use crate::admin_log::{self, AdminAction};
use crate::chain::Endpoints;
use crate::db;
use crate::domain::{MintTransactionState, TxSignature};
use crate::ledger::{self, QuarantineOutcome};

/// The transaction afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub state: MintTransactionState,
    /// Readings that it paid, or that another transaction will pay now.
    pub readings: u64,
}

/// Marks the transaction as landed, if the chain shows it, or as dead, for which the admin is responsible.
pub async fn resolve_transaction(
    pool: &PgPool,
    endpoints: &Endpoints,
    actor: &str,
    signature: TxSignature,
    outcome: QuarantineOutcome,
    reason: &str,
) -> Result<Resolution, AdminError> {
    let reason = parse_reason(reason)?;
    let resolvable = ledger::check_resolvable(pool, endpoints, signature, outcome).await?;
    let mut transaction = db::begin(pool).await?;
    let resolved = ledger::resolve_transaction(&mut transaction, resolvable, &reason).await?;
    let action = AdminAction::ResolveTransaction {
        signature,
        outcome,
        reason,
    };
    admin_log::append(&mut transaction, actor, &action).await?;
    transaction.commit().await?;
    resolved.report_committed();
    tracing::warn!(
        %signature,
        outcome = outcome.as_str(),
        readings = resolved.readings,
        "quarantined mint transaction resolved by an admin"
    );
    Ok(Resolution {
        state: resolved.state,
        readings: resolved.readings,
    })
}
