//! Reasons for which finalized blocks do not prove yet that a transaction did not land.

use thiserror::Error;

use super::block_run::Contradiction;
use crate::chain::error::ChainError;

/// The reason for which there is no proof yet, for the log and for a quarantined reading.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoProof {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "RPC endpoint {endpoint} shows no finalized block at or below slot {slot} that is as old as the blockhash"
    )]
    NoStart { endpoint: String, slot: u64 },
    /// It listed the slot, or the next block names it as its parent.
    #[error("RPC endpoint {endpoint} does not show the block of slot {slot} ({answer})")]
    NotShown {
        endpoint: String,
        slot: u64,
        /// Its answer instead.
        answer: &'static str,
    },
    #[error(
        "RPC endpoint {endpoint} does not show the block of slot {slot} to this version: the block holds a transaction of a \
         newer version; a newer program is needed"
    )]
    NewerVersion { endpoint: String, slot: u64 },
    /// The opposite of a proof; whether it succeeded, a block's list of signatures does not say.
    #[error("RPC endpoint {endpoint} shows it in the finalized block of slot {slot}")]
    Found { endpoint: String, slot: u64 },
    #[error("RPC endpoint {endpoint}: {contradiction}")]
    Contradiction {
        endpoint: String,
        contradiction: Contradiction,
    },
}
