//! The blockhash that a transaction is signed on, and how long it lives.

use solana_commitment_config::CommitmentConfig;
use solana_sdk::hash::Hash;

use super::{ChainError, Endpoint};

/// A recent blockhash with everything that is needed to prove later that a transaction signed on it is dead.
#[derive(Clone, Copy, Debug)]
pub struct RecentBlockhash {
    pub hash: Hash,
    /// Slot at which the endpoint gave it: the blockhash's own slot or a later one.
    pub slot: u64,
    /// The last block height that may hold a transaction signed on it.
    pub last_valid_block_height: u64,
}

/// Blocks that a blockhash lives (`MAX_PROCESSING_AGE` of the runtime): the block of the blockhash has the height
/// `last_valid_block_height - BLOCKHASH_LIFE`.
pub const BLOCKHASH_LIFE: u64 = 150;

impl Endpoint {
    /// At `confirmed`: `processed` may be on a fork that dies, `finalized` has lost 13 of its 60 seconds already.
    pub async fn recent_blockhash(&self) -> Result<RecentBlockhash, ChainError> {
        let commitment = CommitmentConfig::confirmed();
        let (hash, last_valid_block_height) = self
            .rpc()
            .get_latest_blockhash_with_commitment(commitment)
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))?;
        // Asked after the hash: never below the slot of the hash, so the scan that starts there goes back until the
        // heights agree.
        let slot = self
            .rpc()
            .get_slot_with_commitment(commitment)
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))?;
        Ok(RecentBlockhash {
            hash,
            slot,
            last_valid_block_height,
        })
    }

    /// Base58: tells one cluster from another.
    pub async fn genesis_hash(&self) -> Result<String, ChainError> {
        self.rpc()
            .get_genesis_hash()
            .await
            .map(|hash| hash.to_string())
            .map_err(|error| ChainError::from_client(self.name(), &error))
    }

    /// Whether it is on the chain of this genesis hash. Asked before it is believed that something is *not* on chain: one that
    /// was pointed at another cluster since the start shows an unbroken history without any of ours.
    pub async fn check_chain(&self, genesis_hash: &str) -> Result<(), ChainError> {
        let found = self.genesis_hash().await?;
        if found == genesis_hash {
            return Ok(());
        }
        Err(ChainError::Unusable {
            endpoint: self.name().to_owned(),
            reason: format!("it is on another chain, with genesis hash {found}"),
        })
    }

    /// The same, asked once for as long as it answers: an endpoint that was away may come back as a node of another cluster.
    pub async fn assure_chain(&self, genesis_hash: &Hash) -> Result<(), ChainError> {
        if self.health().is_on_our_chain {
            return Ok(());
        }
        self.check_chain(&genesis_hash.to_string()).await?;
        self.health().is_on_our_chain = true;
        Ok(())
    }

    /// Height of the newest finalized block.
    pub async fn finalized_height(&self) -> Result<u64, ChainError> {
        self.rpc()
            .get_block_height_with_commitment(CommitmentConfig::finalized())
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))
    }

    /// Slot of the newest finalized block.
    pub async fn finalized_slot(&self) -> Result<u64, ChainError> {
        self.rpc()
            .get_slot_with_commitment(CommitmentConfig::finalized())
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))
    }
}
