//! The blockhash that a transaction is signed on, and how long it lives.

use solana_sdk::hash::Hash;

use super::commitment::Finality;
use super::endpoints::Endpoint;
use super::error::ChainError;

/// A recent blockhash with everything that is needed to prove later that a transaction signed on it is dead.
#[derive(Clone, Copy, Debug)]
pub struct RecentBlockhash {
    pub hash: Hash,
    /// Slot at which the endpoint returned it: the blockhash's own slot or a later one.
    pub slot: u64,
    /// The last block height that may hold a transaction signed on it.
    pub last_valid_block_height: u64,
}

/// Blocks that a blockhash lives (`MAX_PROCESSING_AGE` of the runtime): the block of the blockhash has the height
/// `last_valid_block_height - BLOCKHASH_LIFE`.
pub const BLOCKHASH_LIFE: u64 = 150;

impl Endpoint {
    /// As confirmed: the newest may be on a fork that is dropped, and under Tower a final one has lost 31 of its 150 blocks already.
    pub async fn recent_blockhash(&self) -> Result<RecentBlockhash, ChainError> {
        let commitment = self.commitment(Finality::Confirmed);
        let (hash, last_valid_block_height) = self.answer(
            self.hot()
                .get_latest_blockhash_with_commitment(commitment)
                .await,
        )?;
        // Queried after the hash: never below the slot of the hash, so the scan that starts there goes back until the heights
        // agree.
        let slot = self.answer(self.hot().get_slot_with_commitment(commitment).await)?;
        Ok(RecentBlockhash {
            hash,
            slot,
            last_valid_block_height,
        })
    }
}
