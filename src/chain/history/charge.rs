//! Reads how much a transaction charged the fee payer.

use super::shown_transaction;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::domain::TxSignature;

/// Lamports that the fee payer paid for one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// For signatures and priority.
    pub fee_lamports: u64,
    /// Beyond the fee: the rent of the accounts that it created.
    pub rent_lamports: u64,
}

/// Of a finalized transaction. `None` proves only that this endpoint does not show it now.
pub async fn charge_of(
    endpoint: &Endpoint,
    signature: TxSignature,
) -> Result<Option<Charge>, ChainError> {
    let shown = shown_transaction::fetch(endpoint, signature, Finality::Final).await?;
    // The fee payer comes first among a transaction's accounts.
    Ok(shown.and_then(|shown| {
        let meta = shown.meta;
        let (before, after) = (meta.pre_balances.first()?, meta.post_balances.first()?);
        Some(Charge {
            fee_lamports: meta.fee,
            rent_lamports: before.saturating_sub(*after).saturating_sub(meta.fee),
        })
    }))
}
