//! Unbroken runs of finalized blocks, and what they prove: pure.
//!
//! Invariant: a transaction is proven absent only by one run that spans the whole life of its blockhash, each block naming the
//! one before it as its parent, none holding the signature. A hole is no proof.

use std::collections::HashSet;

use super::finalized_blocks::Block;
use super::no_proof::NoProof;
use crate::chain::blockhash::BLOCKHASH_LIFE;

/// Finalized blocks that were read in their order: one unbroken run, or several with holes between.
#[derive(Debug, Default)]
pub struct BlockScan {
    runs: Vec<Run>,
    /// A block after the last run was missing: the next block begins another run.
    run_ended: bool,
    /// Why a run ended before the scan did: the first time.
    first_hole: Option<NoProof>,
}

impl BlockScan {
    /// Whether it is proven that a transaction with this signature (base58), signed on a blockhash with this last valid height,
    /// is in no block: one run without a hole spans its whole life, and no run holds it.
    pub fn proves_absent(&self, signature: &str, last_valid_block_height: u64) -> bool {
        self.runs
            .iter()
            .any(|run| run.covers(last_valid_block_height))
            && !self.runs.iter().any(|run| run.holds(signature))
    }

    /// Why the blocks are not one unbroken run from the beginning: the first hole.
    pub fn first_hole(&self) -> Option<&NoProof> {
        self.first_hole.as_ref()
    }

    /// A block is missing here: what is added next begins another run.
    pub(super) fn note_missing(&mut self, missing: NoProof) {
        self.run_ended = true;
        self.first_hole.get_or_insert(missing);
    }

    /// Extends the last run if the block follows it, else begins another.
    pub(super) fn add(&mut self, endpoint: &str, slot: u64, block: Block) {
        let run_ended = std::mem::take(&mut self.run_ended);
        let followed = match self.runs.last_mut() {
            Some(run) if !run_ended => run.follow(slot, block),
            _ => {
                self.runs.push(Run::from(slot, block));
                return;
            }
        };
        if let Err((gap, block)) = followed {
            self.first_hole.get_or_insert(NoProof::Hole {
                endpoint: endpoint.to_owned(),
                slot,
                parent: gap.parent,
                previous: gap.previous,
            });
            self.runs.push(Run::from(slot, block));
        }
    }
}

/// Blocks that each name the one before as their parent, and every signature in them.
#[derive(Debug)]
struct Run {
    first_height: u64,
    last_height: u64,
    last_slot: u64,
    signatures: HashSet<String>,
}

/// A block does not name the one before it as its parent.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    parent: u64,
    previous: u64,
}

impl Run {
    fn from(slot: u64, block: Block) -> Run {
        Run {
            first_height: block.height,
            last_height: block.height,
            last_slot: slot,
            signatures: block.signatures.into_iter().collect(),
        }
    }

    /// Extends the run by a later block; returns the block if it does not follow the last one.
    fn follow(&mut self, slot: u64, block: Block) -> Result<(), (Gap, Block)> {
        if block.parent_slot != self.last_slot {
            let gap = Gap {
                parent: block.parent_slot,
                previous: self.last_slot,
            };
            return Err((gap, block));
        }
        self.last_height = block.height;
        self.last_slot = slot;
        self.signatures.extend(block.signatures);
        Ok(())
    }

    /// Whether these blocks span the whole life of a blockhash with this last valid height.
    ///
    /// The block one above that height belongs to it: a node calls a blockhash valid while its own newest block has at most
    /// the last valid height, and the next block may hold the transaction (the runtime checks 151 hashes).
    fn covers(&self, last_valid_block_height: u64) -> bool {
        self.first_height + BLOCKHASH_LIFE <= last_valid_block_height
            && self.last_height > last_valid_block_height
    }

    fn holds(&self, signature: &str) -> bool {
        self.signatures.contains(signature)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A chain of blocks with one signature each, named after its slot; `gaps` are the slots from each block to the next.
    pub(in crate::chain::history) fn chain(
        first_slot: u64,
        first_height: u64,
        gaps: &[u64],
    ) -> BTreeMap<u64, Block> {
        let mut blocks = BTreeMap::new();
        let (mut slot, mut parent_slot) = (first_slot, first_slot - 1);
        for (height, gap) in (first_height..).zip(gaps) {
            let block = Block {
                height,
                parent_slot,
                signatures: vec![format!("in {slot}")],
            };
            blocks.insert(slot, block);
            parent_slot = slot;
            slot += gap;
        }
        blocks
    }

    /// Reads what a node shows, as `scan_blocks` does.
    fn scanned(shown: &BTreeMap<u64, Block>) -> BlockScan {
        let mut scan = BlockScan::default();
        for (slot, block) in shown {
            scan.add("rpc-1", *slot, block.clone());
        }
        scan
    }

    proptest! {
        /// No matter which blocks a node lacks: what it proves absent is in no block of the whole chain that could hold it.
        #[test]
        fn what_is_proven_absent_is_in_no_block_of_its_life(
            gaps in prop::collection::vec(prop_oneof![9 => 1_u64..6, 1 => 300_u64..3_000], 140..480),
            lacks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            held_at in any::<prop::sample::Index>(),
            last_valid_block_height in 1_150_u64..1_470,
        ) {
            let whole = chain(5_000, 1_000, &gaps);
            let mut shown = whole.clone();
            for lack in lacks {
                let slots: Vec<u64> = shown.keys().copied().collect();
                shown.remove(lack.get(&slots));
            }
            let heights: Vec<(u64, u64)> = whole.iter().map(|(slot, block)| (*slot, block.height)).collect();
            let (slot, height) = *held_at.get(&heights);
            let life = last_valid_block_height - BLOCKHASH_LIFE + 1..=last_valid_block_height + 1;
            let scan = scanned(&shown);
            if life.contains(&height) {
                prop_assert!(!scan.proves_absent(&format!("in {slot}"), last_valid_block_height), "height {height}");
            }
            // And where no block is lacking, the absence of what never landed is proven.
            let needed = last_valid_block_height - BLOCKHASH_LIFE..=last_valid_block_height + 1;
            let is_shown = |height| whole.iter().any(|(slot, block)| block.height == height && shown.contains_key(slot));
            prop_assert_eq!(scan.proves_absent("nowhere", last_valid_block_height), needed.into_iter().all(is_shown));
        }
    }

    #[test]
    fn a_life_spans_the_block_of_the_blockhash_and_151_more() {
        let blocks = chain(5_000, 1_000, &[2; 152]);
        let scan = scanned(&blocks);
        assert!(scan.proves_absent("nowhere", 1_150));
        assert!(
            !scan.proves_absent("nowhere", 1_149),
            "the blockhash's own block is missing"
        );
        assert!(
            !scan.proves_absent("nowhere", 1_151),
            "the last block is missing"
        );
        let in_the_last = format!("in {}", blocks.last_key_value().unwrap().0);
        assert!(!scan.proves_absent(&in_the_last, 1_150));
    }
}
