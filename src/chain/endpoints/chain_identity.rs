//! Identifies the chain that an endpoint is on, and its newest finalized block. All of these are background calls except
//! [`Endpoint::ensure_chain`], which a batch waits for.

use solana_sdk::hash::Hash;

use super::endpoint::Endpoint;
use super::rpc_class::RpcClass;
use crate::chain::commitment::Finality;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;

impl Endpoint {
    /// Base58: identifies the cluster.
    pub async fn genesis_hash(&self) -> Result<String, ChainError> {
        self.genesis_hash_by(RpcClass::Background).await
    }

    async fn genesis_hash_by(&self, class: RpcClass) -> Result<String, ChainError> {
        let hash = self.answer(self.client(class).get_genesis_hash().await)?;
        Ok(hash.to_string())
    }

    /// Whether it is on the chain of this genesis hash. Call it before concluding that something is *not* on chain: an endpoint
    /// that was pointed at another cluster since the start shows an unbroken history without any of our transactions.
    pub async fn check_chain(&self, genesis_hash: &str) -> Result<(), ChainError> {
        self.check_chain_by(RpcClass::Background, genesis_hash)
            .await
    }

    async fn check_chain_by(&self, class: RpcClass, genesis_hash: &str) -> Result<(), ChainError> {
        let found = self.genesis_hash_by(class).await?;
        if found == genesis_hash {
            return Ok(());
        }
        Err(self.unusable(UnusableAnswer::OtherChain { found }))
    }

    /// Like [`Self::check_chain`], but fails at once while the endpoint refuses background calls.
    pub async fn look_up_chain(&self, genesis_hash: &Hash) -> Result<(), ChainError> {
        self.check_chain_by(RpcClass::LookUp, &genesis_hash.to_string())
            .await
    }

    /// Like [`Self::check_chain`], but a hot call, and the result is cached until the endpoint fails: it may return as a node of
    /// another cluster.
    pub async fn ensure_chain(&self, genesis_hash: &Hash) -> Result<(), ChainError> {
        if self.health().is_on_our_chain {
            return Ok(());
        }
        self.check_chain_by(RpcClass::Hot, &genesis_hash.to_string())
            .await?;
        self.health().is_on_our_chain = true;
        Ok(())
    }

    /// Height of the newest finalized block.
    pub async fn finalized_height(&self) -> Result<u64, ChainError> {
        let commitment = self.commitment(Finality::Final);
        self.answer(
            self.background()
                .get_block_height_with_commitment(commitment)
                .await,
        )
    }

    /// Slot of the newest finalized block.
    pub async fn finalized_slot(&self) -> Result<u64, ChainError> {
        let commitment = self.commitment(Finality::Final);
        self.answer(self.background().get_slot_with_commitment(commitment).await)
    }

    /// The oldest slot whose block it still has. It shows nothing older, which proves nothing about what is older.
    pub async fn first_available_slot(&self) -> Result<u64, ChainError> {
        self.answer(self.background().get_first_available_block().await)
    }
}
