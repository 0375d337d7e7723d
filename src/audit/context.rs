//! Chooses the endpoint with full history and reads the supply: all steps of an audit share them.

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::error::AuditError;
use crate::chain::{
    ChainError, Endpoint, Endpoints, Finality, INDEXING_LAG_SLOTS, TokenSupply,
    history_includes_creation,
};
use crate::domain::BaseUnits;
use crate::ledger::ChainBinding;

/// Transactions read from the chain at once.
pub(super) const READS_AT_ONCE: usize = 16;
/// Limit of the wait until the chain has passed the slot of the supply: a chain that produces no blocks cannot be audited.
const NEXT_SLOT_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The two sides that an audit compares.
pub(super) struct AuditContext<'a> {
    pub pool: &'a PgPool,
    /// All endpoints, for looking up single transactions.
    pub endpoints: &'a Endpoints,
    /// The endpoint whose history and supply are compared.
    pub endpoint: &'a Endpoint,
    pub mint: Pubkey,
    pub authority: Pubkey,
    pub supply: Supply,
    /// Up to here the chain is final, and nodes list what is in its blocks.
    pub final_slot: u64,
}

/// The token's supply, and as of which slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supply {
    pub base_units: BaseUnits,
    pub slot: u64,
    /// The block of that slot was not closed yet: some of its transactions may have been executed after the supply was read.
    pub slot_is_open: bool,
}

impl<'a> AuditContext<'a> {
    /// Chooses the endpoint and reads the supply, which fixes the slot as of which everything is compared. `known_up_to`: the
    /// history is read above this slot only; `None`: from the mint's creation on.
    pub async fn prepare(
        pool: &'a PgPool,
        endpoints: &'a Endpoints,
        binding: &ChainBinding,
        known_up_to: Option<u64>,
    ) -> Result<AuditContext<'a>, AuditError> {
        let endpoint = endpoint_with_history(endpoints, binding, known_up_to).await?;
        // Before the list: what is final now is on it, a little later.
        let final_slot = endpoint.finalized_slot().await?;
        Ok(AuditContext {
            // Checkpoints stay below.
            final_slot: final_slot.saturating_sub(INDEXING_LAG_SLOTS),
            pool,
            endpoints,
            endpoint,
            mint: binding.mint,
            authority: binding.authority,
            supply: supply(endpoint, &binding.mint).await?,
        })
    }
}

/// The first endpoint whose history begins with the mint's creation, or reaches back to the slot that is known; each endpoint that
/// is queried must be on the ledger's chain.
///
/// A shorter history would hide mints that the ledger lacks: if holders burned as much, the supply does not reveal them
/// either.
async fn endpoint_with_history<'a>(
    endpoints: &'a Endpoints,
    binding: &ChainBinding,
    known_up_to: Option<u64>,
) -> Result<&'a Endpoint, AuditError> {
    let mut failure = AuditError::from(ChainError::NoneUsable {
        endpoints: Vec::new(),
    });
    let mut without_beginning = Vec::new();
    for endpoint in endpoints.iter() {
        match reaches_back(endpoint, binding, known_up_to).await {
            Ok(true) => return Ok(endpoint),
            Ok(false) => without_beginning.push(endpoint.name()),
            Err(AuditError::Chain(error)) => failure = error.into(),
            Err(error) => return Err(error),
        }
    }
    if without_beginning.is_empty() {
        return Err(failure);
    }
    if let Some(slot) = known_up_to {
        return Err(AuditError::NoRecentHistory {
            slot,
            endpoints: without_beginning.join(", "),
        });
    }
    Err(AuditError::NoBeginning {
        mint: binding.mint.to_string(),
        endpoints: without_beginning.join(", "),
    })
}

async fn reaches_back(
    endpoint: &Endpoint,
    binding: &ChainBinding,
    known_up_to: Option<u64>,
) -> Result<bool, AuditError> {
    let found = endpoint.genesis_hash().await?;
    if found != binding.genesis_hash {
        return Err(AuditError::OtherChain {
            ledger: binding.genesis_hash.clone(),
            endpoint: found,
        });
    }
    Ok(match known_up_to {
        Some(slot) => {
            // One that is behind the checkpoints shows nothing of what is new.
            endpoint.first_available_slot().await? <= slot + 1
                && endpoint.finalized_slot().await? >= slot
        }
        None => history_includes_creation(endpoint, &binding.mint).await?,
    })
}

async fn supply(endpoint: &Endpoint, mint: &Pubkey) -> Result<Supply, AuditError> {
    let newest_before = slot(endpoint, Finality::Newest).await?;
    let TokenSupply { base_units, slot } = endpoint.token_supply(mint).await?;
    let supply = Supply {
        base_units,
        slot,
        slot_is_open: slot >= newest_before,
    };
    wait_until_beyond(endpoint, supply.slot).await?;
    Ok(supply)
}

/// The history that is listed next must contain the whole slot of the supply.
async fn wait_until_beyond(endpoint: &Endpoint, supply_slot: u64) -> Result<(), AuditError> {
    let beyond = tokio::time::timeout(NEXT_SLOT_LIMIT, async {
        while slot(endpoint, Finality::Confirmed).await? <= supply_slot {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    });
    beyond.await.unwrap_or(Err(AuditError::Standstill {
        slot: supply_slot,
        limit_secs: NEXT_SLOT_LIMIT.as_secs(),
    }))
}

async fn slot(endpoint: &Endpoint, finality: Finality) -> Result<u64, AuditError> {
    let commitment = endpoint.commitment(finality);
    let slot = endpoint
        .background()
        .get_slot_with_commitment(commitment)
        .await;
    Ok(slot.map_err(|error| ChainError::from_client(endpoint.name(), &error))?)
}
