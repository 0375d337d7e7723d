//! Why a scan of finalized blocks has not proven that a transaction did not land.

use thiserror::Error;

use crate::chain::error::ChainError;

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

impl NoProof {
    /// Whether the endpoint answered, and this one block is all that it did not show.
    pub(super) fn is_missing_block(&self) -> bool {
        matches!(
            self,
            NoProof::Chain(ChainError::ErrorResponse { .. }) | NoProof::Incomplete { .. }
        )
    }
}
