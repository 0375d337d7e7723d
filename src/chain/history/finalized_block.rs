//! A block that cannot be rolled back, as far as proofs need it.

use solana_sdk::hash::Hash;

use crate::domain::TxSignature;

/// A finalized block, with the signature of every transaction in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalizedBlock {
    pub slot: u64,
    pub height: u64,
    pub hash: Hash,
    pub parent_slot: u64,
    pub parent_hash: Hash,
    pub signatures: Vec<TxSignature>,
}

#[cfg(test)]
impl FinalizedBlock {
    /// An empty block of the chain that tests use. Its hashes follow from the slots.
    pub(super) fn empty(slot: u64, height: u64, parent_slot: u64) -> FinalizedBlock {
        FinalizedBlock::of_chain(1, slot, height, parent_slot)
    }

    /// An empty block; chains of different numbers have no hash in common.
    pub(super) fn of_chain(chain: u8, slot: u64, height: u64, parent_slot: u64) -> FinalizedBlock {
        let hash = |slot: u64| {
            let mut bytes = [chain; 32];
            bytes[..8].copy_from_slice(&slot.to_be_bytes());
            Hash::new_from_array(bytes)
        };
        FinalizedBlock {
            slot,
            height,
            hash: hash(slot),
            parent_slot,
            parent_hash: hash(parent_slot),
            signatures: Vec::new(),
        }
    }
}
