//! What an endpoint shows of the mint as a whole: its supply, and whether its history goes back to the beginning.
//!
//! Invariant: a history counts as complete only when it shows a transaction before which the mint did not exist. Nothing can have
//! happened to the mint earlier. A node that has pruned its oldest blocks shows a list that merely begins later, and the supply
//! alone does not reveal it: holders may have burned what the pruned part minted.

use solana_sdk::pubkey::Pubkey;

use super::address_history::{AddressHistory, HistoryRange};
use super::call_retry::until_shown;
use super::shown_transaction::lamports_before;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::domain::BaseUnits;

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

/// Whether this endpoint's history of the mint begins with the mint's creation.
///
/// As confirmed: a mint that was created a moment ago need not be final, since what a fork takes back cannot precede
/// the creation.
pub async fn history_includes_creation(
    endpoint: &Endpoint,
    mint: &Pubkey,
) -> Result<bool, ChainError> {
    let begins_with_creation = until_shown(|| begins_with_creation(endpoint, mint));
    Ok(begins_with_creation.await?.unwrap_or(false))
}

/// `None`: it shows nothing of the mint at all, or not yet.
async fn begins_with_creation(
    endpoint: &Endpoint,
    mint: &Pubkey,
) -> Result<Option<bool>, ChainError> {
    let range = HistoryRange {
        floor_slot: 0,
        head_slot: endpoint.finalized_slot().await?,
        finality: Finality::Confirmed,
    };
    let mut pages = AddressHistory::new(endpoint, *mint, range);
    let mut oldest = None;
    while let Some(page) = pages.next_page().await? {
        oldest = page.last().copied().or(oldest);
    }
    let Some(oldest) = oldest else {
        return Ok(None);
    };
    let before = lamports_before(endpoint, oldest.signature, mint, range.finality).await?;
    Ok(before.map(|lamports| lamports == 0))
}
