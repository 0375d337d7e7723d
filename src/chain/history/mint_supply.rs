//! Reads the mint's supply and checks that an endpoint's history reaches its creation.
//!
//! Invariant: a history counts as complete only when it shows a transaction before which the mint did not exist. Nothing can have
//! happened to the mint earlier. A node that has pruned its oldest blocks shows a list that merely begins later, and the supply
//! alone does not reveal it: holders may have burned what the pruned part minted.

use solana_sdk::pubkey::Pubkey;

use super::address_history::{AddressHistory, HistoryCursor, HistoryRange};
use super::call_retry::until_shown;
use super::shown_transaction::lamports_before;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::domain::{BaseUnits, TxSignature};

/// The token's supply, and the slot as of which it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSupply {
    pub base_units: BaseUnits,
    pub slot: u64,
}

impl Endpoint {
    /// As final, so that no fork takes any of it back. A local chain answers with its newest state instead.
    pub async fn token_supply(&self, mint: &Pubkey) -> Result<TokenSupply, ChainError> {
        let supply = self
            .background()
            .get_token_supply_with_commitment(mint, self.commitment(Finality::Final));
        let answer = self.answer(supply.await)?;
        let Ok(base_units) = answer.value.amount.parse() else {
            return Err(self.unusable(UnusableAnswer::Supply(answer.value.amount)));
        };
        Ok(TokenSupply {
            base_units,
            slot: answer.context.slot,
        })
    }
}

/// Whether this endpoint's history of the mint begins with the mint's creation. Reads the whole of it.
pub async fn history_includes_creation(
    endpoint: &Endpoint,
    mint: &Pubkey,
) -> Result<bool, ChainError> {
    let begins_with_creation = until_shown(async || {
        let mut pages = mint_history(endpoint, mint, None).await?;
        while pages.next_page().await?.is_some() {}
        match pages.cursor() {
            Some(oldest) => shows_creation(endpoint, mint, oldest.signature).await,
            None => Ok(None),
        }
    });
    Ok(begins_with_creation.await?.unwrap_or(false))
}

/// The transactions of the mint, newest first, below `before`.
///
/// As confirmed: a mint that was created a moment ago need not be final, since what a fork takes back cannot precede
/// the creation.
pub async fn mint_history<'a>(
    endpoint: &'a Endpoint,
    mint: &Pubkey,
    before: Option<HistoryCursor>,
) -> Result<AddressHistory<'a>, ChainError> {
    let range = HistoryRange {
        floor_slot: 0,
        head_slot: endpoint.finalized_slot().await?,
        finality: Finality::Confirmed,
    };
    Ok(AddressHistory::resume(endpoint, *mint, range, before))
}

/// Whether this endpoint shows that the mint did not exist before this transaction, so that its history goes back that far. `None`:
/// it does not show the transaction, or not yet.
pub async fn shows_creation(
    endpoint: &Endpoint,
    mint: &Pubkey,
    signature: TxSignature,
) -> Result<Option<bool>, ChainError> {
    let before = lamports_before(endpoint, signature, mint, Finality::Confirmed).await?;
    Ok(before.map(|lamports| lamports == 0))
}
