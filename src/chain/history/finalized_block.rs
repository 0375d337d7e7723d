//! A block that cannot be rolled back, as far as proofs need it.

use crate::domain::TxSignature;

/// A finalized block, with the signature of every transaction in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedBlock {
    pub slot: u64,
    pub height: u64,
    pub parent_slot: u64,
    pub signatures: Vec<TxSignature>,
}
