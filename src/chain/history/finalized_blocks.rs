//! Finalized blocks as an endpoint lists and shows them.

use solana_client::rpc_config::RpcBlockConfig;
use solana_transaction_status::{TransactionDetails, UiConfirmedBlock, UiTransactionEncoding};

use super::no_proof::NoProof;
use crate::chain::blockhash::BLOCKHASH_LIFE;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::domain::NEWEST_TRANSACTION_VERSION;

/// Slots requested in one `getBlocks`; fewer blocks are returned where slots were skipped.
const SLOTS_PER_LIST: u64 = 400;
/// What `getBlocks` takes at most.
pub(super) const SLOTS_PER_LIST_MAX: u64 = 500_000;
/// How far before the blockhash's slot the first block may be.
const LOOK_BACK_SLOTS: u64 = 2_000;
/// Blocks in a row that an endpoint may list and not show before it counts as one without history.
pub(super) const MISSING_IN_A_ROW_MAX: u32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub height: u64,
    pub parent_slot: u64,
    pub signatures: Vec<String>,
}

/// Slots of the blocks that come after this one. Where many slots in a row were skipped (a cluster that stood still), the list
/// is requested further on: the parent of the block that is found shows whether there was one between.
pub(super) async fn slots_after(endpoint: &Endpoint, slot: u64) -> Result<Vec<u64>, ChainError> {
    let mut first = slot + 1;
    let mut length = SLOTS_PER_LIST;
    loop {
        let newest = first + length - 1;
        let slots = finalized_slots(endpoint, first, newest).await?;
        if !slots.is_empty() || newest >= endpoint.finalized_slot().await? {
            return Ok(slots);
        }
        first = newest + 1;
        length = (length * 4).min(SLOTS_PER_LIST_MAX);
    }
}

/// The newest finalized block at or below the slot whose height shows that it is not after the blockhash's own block.
pub(super) async fn first_block(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
) -> Result<(u64, Block), NoProof> {
    let oldest = from_slot.saturating_sub(LOOK_BACK_SLOTS);
    let slots = finalized_slots(endpoint, oldest, from_slot).await?;
    let mut missing = 0;
    for slot in slots.into_iter().rev() {
        let block = match read_block(endpoint, slot).await {
            Ok(block) => block,
            // An older one is enough; the scan reports the hole when it reaches it.
            Err(error) if error.is_missing_block() && missing < MISSING_IN_A_ROW_MAX => {
                missing += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        if block.height + BLOCKHASH_LIFE <= lowest_last_valid_height {
            return Ok((slot, block));
        }
    }
    Err(NoProof::NoStart {
        endpoint: endpoint.name().to_owned(),
        slot: from_slot,
    })
}

async fn finalized_slots(
    endpoint: &Endpoint,
    first: u64,
    last: u64,
) -> Result<Vec<u64>, ChainError> {
    let slots = endpoint
        .background()
        .get_blocks_with_commitment(first, Some(last), endpoint.commitment(Finality::Final))
        .await;
    endpoint.answer(slots)
}

pub(super) async fn read_block(endpoint: &Endpoint, slot: u64) -> Result<Block, NoProof> {
    let config = RpcBlockConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        transaction_details: Some(TransactionDetails::Signatures),
        rewards: Some(false),
        commitment: Some(endpoint.commitment(Finality::Final)),
        max_supported_transaction_version: Some(NEWEST_TRANSACTION_VERSION),
    };
    let block = endpoint
        .background()
        .get_block_with_config(slot, config)
        .await;
    let block: UiConfirmedBlock = endpoint.answer(block)?;
    match (block.block_height, block.signatures) {
        (Some(height), Some(signatures)) => Ok(Block {
            height,
            parent_slot: block.parent_slot,
            signatures,
        }),
        _ => Err(NoProof::Incomplete {
            endpoint: endpoint.name().to_owned(),
            slot,
        }),
    }
}
