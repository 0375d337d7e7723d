//! The finalized blocks themselves: the only proof that a transaction did not land.
//!
//! "Not found" from a status call proves nothing: a node may lag, may have pruned its history, may be one of a mixed
//! pool. What proves is an unbroken chain of finalized blocks over the whole life of the transaction's blockhash, each
//! block naming the one before it as its parent, none holding the signature. A hole is no proof.

use std::collections::HashSet;

use solana_client::rpc_config::RpcBlockConfig;
use solana_commitment_config::CommitmentConfig;
use solana_transaction_status::{TransactionDetails, UiConfirmedBlock, UiTransactionEncoding};
use thiserror::Error;

use super::blockhash::BLOCKHASH_LIFE;
use super::{ChainError, Endpoint};

/// An unbroken run of finalized blocks and every signature in it.
#[derive(Debug)]
pub struct BlockScan {
    first_height: u64,
    last_height: u64,
    signatures: HashSet<String>,
}

impl BlockScan {
    /// Whether these blocks span the whole life of a blockhash with this last valid height.
    pub fn covers(&self, last_valid_block_height: u64) -> bool {
        self.first_height + BLOCKHASH_LIFE <= last_valid_block_height
            && self.last_height > last_valid_block_height
    }

    /// Whether one of these blocks holds the signature (base58).
    pub fn holds(&self, signature: &str) -> bool {
        self.signatures.contains(signature)
    }
}

/// Why there is no proof yet.
#[derive(Debug, Error)]
pub enum NoProof {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("RPC endpoint {endpoint}: finalized height {height} has not passed {needed}")]
    TooEarly {
        endpoint: String,
        height: u64,
        needed: u64,
    },
    #[error(
        "RPC endpoint {endpoint}: no finalized block at or below slot {slot} that is old enough"
    )]
    NoStart { endpoint: String, slot: u64 },
    #[error(
        "RPC endpoint {endpoint}: the chain of blocks breaks at slot {slot}: its parent is {parent}, before it came {previous}"
    )]
    Hole {
        endpoint: String,
        slot: u64,
        parent: u64,
        previous: u64,
    },
    #[error("RPC endpoint {endpoint}: block {slot} came without height or signatures")]
    Incomplete { endpoint: String, slot: u64 },
}

/// Slots asked for in one `getBlocks`; skipped slots make it more than the blocks that come back.
const SLOTS_PER_LIST: u64 = 400;
/// How far before the blockhash's slot the first block may be sought.
const LOOK_BACK_SLOTS: u64 = 2_000;
/// Blocks read in one scan at most: bounds memory; transactions further on are proven by the next scan.
const BLOCKS_PER_SCAN: usize = 1_500;

/// Reads the finalized blocks from the newest one at or below `from_slot` that is old enough for the oldest
/// blockhash (`lowest_last_valid_height`), up to one above `beyond_height`.
pub async fn scan_blocks(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
    beyond_height: u64,
) -> Result<BlockScan, NoProof> {
    let height = endpoint.finalized_height().await?;
    if height <= beyond_height {
        return Err(NoProof::TooEarly {
            endpoint: endpoint.name().to_owned(),
            height,
            needed: beyond_height,
        });
    }
    let (first_slot, first) = first_block(endpoint, from_slot, lowest_last_valid_height).await?;
    let mut scan = BlockScan {
        first_height: first.height,
        last_height: first.height,
        signatures: first.signatures.into_iter().collect(),
    };
    let mut previous = first_slot;
    let mut blocks = 1;
    while scan.last_height <= beyond_height && blocks < BLOCKS_PER_SCAN {
        let slots = finalized_slots(endpoint, previous + 1, previous + SLOTS_PER_LIST).await?;
        if slots.is_empty() {
            return Err(NoProof::TooEarly {
                endpoint: endpoint.name().to_owned(),
                height: scan.last_height,
                needed: beyond_height,
            });
        }
        for slot in slots {
            let block = read_block(endpoint, slot).await?;
            if block.parent_slot != previous {
                return Err(NoProof::Hole {
                    endpoint: endpoint.name().to_owned(),
                    slot,
                    parent: block.parent_slot,
                    previous,
                });
            }
            scan.last_height = block.height;
            scan.signatures.extend(block.signatures);
            previous = slot;
            blocks += 1;
            if scan.last_height > beyond_height {
                break;
            }
        }
    }
    Ok(scan)
}

struct Block {
    height: u64,
    parent_slot: u64,
    signatures: Vec<String>,
}

/// The newest finalized block at or below the slot whose height shows that it is not after the blockhash's own block.
async fn first_block(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
) -> Result<(u64, Block), NoProof> {
    let oldest = from_slot.saturating_sub(LOOK_BACK_SLOTS);
    let slots = finalized_slots(endpoint, oldest, from_slot).await?;
    for slot in slots.into_iter().rev() {
        let block = read_block(endpoint, slot).await?;
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
    endpoint
        .rpc()
        .get_blocks_with_commitment(first, Some(last), CommitmentConfig::finalized())
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))
}

async fn read_block(endpoint: &Endpoint, slot: u64) -> Result<Block, NoProof> {
    let config = RpcBlockConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        transaction_details: Some(TransactionDetails::Signatures),
        rewards: Some(false),
        commitment: Some(CommitmentConfig::finalized()),
        max_supported_transaction_version: Some(0),
    };
    let block: UiConfirmedBlock = endpoint
        .rpc()
        .get_block_with_config(slot, config)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
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
