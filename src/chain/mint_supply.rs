//! What an endpoint knows of the mint as a whole: its supply, and whether its history goes back to the beginning.
//!
//! Invariant: a history is called whole only when it shows a transaction before which the mint did not exist. Nothing of the
//! mint can have happened earlier. A node that has forgotten its oldest blocks shows a list that merely begins later, and the
//! supply alone does not tell: holders may have burned what the forgotten part minted.

use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;

use super::mint_lookup::{APPEAR_PAUSE, APPEAR_TRIES, lamports_before};
use super::{ChainError, Endpoint, walk_history};
use crate::domain::BaseUnits;

/// The token's supply, and the slot as of which it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenSupply {
    pub base_units: BaseUnits,
    pub slot: u64,
}

impl Endpoint {
    /// At finalized commitment, so that no fork takes any of it back. A local chain answers with its newest state instead.
    pub async fn token_supply(&self, mint: &Pubkey) -> Result<TokenSupply, ChainError> {
        let answer = self
            .rpc()
            .get_token_supply_with_commitment(mint, CommitmentConfig::finalized())
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))?;
        let base_units = answer
            .value
            .amount
            .parse()
            .map_err(|_| ChainError::Unusable {
                endpoint: self.name().to_owned(),
                reason: format!("the supply {} is no amount", answer.value.amount),
            })?;
        Ok(TokenSupply {
            base_units,
            slot: answer.context.slot,
        })
    }
}

/// Whether this endpoint's history of the mint begins with the mint.
///
/// At confirmed commitment: a mint that was made a moment ago need not be final, since what a fork takes back cannot lie before
/// it.
pub async fn shows_creation(endpoint: &Endpoint, mint: &Pubkey) -> Result<bool, ChainError> {
    for _ in 1..APPEAR_TRIES {
        if let Some(shown) = look(endpoint, mint).await? {
            return Ok(shown);
        }
        tokio::time::sleep(APPEAR_PAUSE).await;
    }
    Ok(look(endpoint, mint).await?.unwrap_or(false))
}

/// `None`: it shows nothing of the mint at all, or not yet.
async fn look(endpoint: &Endpoint, mint: &Pubkey) -> Result<Option<bool>, ChainError> {
    let commitment = CommitmentConfig::confirmed();
    let head_slot = endpoint.finalized_slot().await?;
    let mut pages = walk_history(endpoint, *mint, 0, head_slot, commitment);
    let mut oldest = None;
    while let Some(page) = pages.next_page().await? {
        oldest = page.last().copied().or(oldest);
    }
    let Some(oldest) = oldest else {
        return Ok(None);
    };
    let before = lamports_before(endpoint, &oldest.signature, mint, commitment).await?;
    Ok(before.map(|lamports| lamports == 0))
}
