//! Unbroken runs of finalized blocks of one endpoint, and what they prove: pure.
//!
//! Invariant: a run holds every block between its ends. Kept by [`BlockRuns::place`], which joins two blocks only if the later one
//! names the earlier one as its parent, by slot and hash, and is one block higher. A transaction is proven absent only by one run that begins at
//! or before the slot of its blockhash and spans all heights at which the blockhash is valid; a hole is no proof.

use solana_sdk::hash::Hash;
use thiserror::Error;

use super::finalized_block::FinalizedBlock;
use crate::chain::blockhash::BLOCKHASH_LIFE;

/// How far before the slot of a blockhash the search for its own block goes: nodes return the slot right after the hash, so its
/// block is one or two blocks before. Below, heights and slots of this endpoint contradict each other.
pub(super) const LOOK_BACK_SLOTS: u64 = 2_000;

/// The blocks that can hold a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockhashLife {
    /// The slot of the blockhash, or a later one.
    pub slot: u64,
    pub last_valid_block_height: u64,
}

/// Blocks that each name the one before as their parent, by the first and the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    pub first_slot: u64,
    pub first_height: u64,
    /// Slot of the block before the first one.
    pub first_parent_slot: u64,
    /// Hash of the block before the first one, as the first one names it.
    pub first_parent_hash: Hash,
    pub last_slot: u64,
    pub last_height: u64,
    pub last_hash: Hash,
}

impl BlockRun {
    fn of(block: &FinalizedBlock) -> BlockRun {
        BlockRun {
            first_slot: block.slot,
            first_height: block.height,
            first_parent_slot: block.parent_slot,
            first_parent_hash: block.parent_hash,
            last_slot: block.slot,
            last_height: block.height,
            last_hash: block.hash,
        }
    }

    /// Whether these blocks are all that could hold the transaction.
    ///
    /// The block one above the last valid height belongs to them: a node calls a blockhash valid while its own newest block has at
    /// most that height, and the next block may hold the transaction (the runtime checks 151 hashes). The slot is checked as
    /// well as the height, so that heights that an endpoint counts differently prove nothing.
    pub fn covers(&self, life: &BlockhashLife) -> bool {
        self.first_slot <= life.slot
            && self.first_height + BLOCKHASH_LIFE <= life.last_valid_block_height
            && self.last_height > life.last_valid_block_height
    }

    fn includes(&self, slot: u64) -> bool {
        (self.first_slot..=self.last_slot).contains(&slot)
    }

    /// The run of both, if the later one begins with the block after this one's last.
    fn joined_with(&self, later: &BlockRun) -> Option<BlockRun> {
        let follows = later.first_parent_slot == self.last_slot
            && later.first_parent_hash == self.last_hash
            && later.first_height == self.last_height + 1
            && later.first_slot > self.last_slot;
        follows.then_some(BlockRun {
            last_slot: later.last_slot,
            last_height: later.last_height,
            last_hash: later.last_hash,
            ..*self
        })
    }
}

/// Blocks of one endpoint that cannot belong to one chain: what was read of it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the block of slot {slot} (hash {hash}, height {height}, parent {parent_slot} with hash {parent_hash}) contradicts blocks \
     that it showed before"
)]
pub struct Contradiction {
    slot: u64,
    height: u64,
    hash: Hash,
    parent_slot: u64,
    parent_hash: Hash,
}

/// What one block changes: `run` takes the place of the runs that it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunChange {
    pub replaced: Vec<BlockRun>,
    pub run: BlockRun,
}

/// The next thing to read for a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: this run covers the life.
    Covered(BlockRun),
    /// No run includes the slot where the search stands: find the newest block at or below it.
    Begin,
    /// The block of this slot, which a block that was read names as its parent.
    Parent(u64),
    /// The blocks after this slot, one by one.
    After(u64),
    /// No block within [`LOOK_BACK_SLOTS`] is as old as the blockhash.
    TooFarBack,
}

/// The runs of one endpoint, lowest slot first; no two touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockRuns(Vec<BlockRun>);

impl BlockRuns {
    pub fn new(mut runs: Vec<BlockRun>) -> BlockRuns {
        runs.sort_by_key(|run| run.first_slot);
        BlockRuns(runs)
    }

    /// The run that includes this slot.
    pub fn at(&self, slot: u64) -> Option<&BlockRun> {
        self.0.iter().find(|run| run.includes(slot))
    }

    /// The lowest run above this slot.
    pub(super) fn above(&self, slot: u64) -> Option<&BlockRun> {
        self.0.iter().find(|run| run.first_slot > slot)
    }

    /// What to read next for this life, with the search standing at a slot at or below the life's.
    pub(super) fn next_step(&self, stands_at: u64, life: &BlockhashLife) -> Step {
        let Some(run) = self.at(stands_at) else {
            return Step::Begin;
        };
        if run.first_height + BLOCKHASH_LIFE > life.last_valid_block_height {
            let is_near = life.slot.saturating_sub(run.first_parent_slot) <= LOOK_BACK_SLOTS;
            return if is_near && run.first_parent_slot < run.first_slot {
                Step::Parent(run.first_parent_slot)
            } else {
                Step::TooFarBack
            };
        }
        if run.last_height > life.last_valid_block_height {
            return Step::Covered(*run);
        }
        match self.above(run.last_slot) {
            // Whatever lies between is needed, and the later run names it.
            Some(later) if later.first_height <= life.last_valid_block_height + 1 => {
                Step::Parent(later.first_parent_slot)
            }
            _ => Step::After(run.last_slot),
        }
    }

    /// What this block changes.
    pub(super) fn place(&self, block: &FinalizedBlock) -> Result<RunChange, Contradiction> {
        let contradiction = Contradiction {
            slot: block.slot,
            height: block.height,
            hash: block.hash,
            parent_slot: block.parent_slot,
            parent_hash: block.parent_hash,
        };
        if block.parent_slot >= block.slot || self.at(block.slot).is_some() {
            return Err(contradiction);
        }
        let mut change = RunChange {
            replaced: Vec::new(),
            run: BlockRun::of(block),
        };
        let earlier = self.0.iter().rfind(|run| run.last_slot < block.slot);
        if let Some(earlier) = earlier.filter(|run| run.last_slot >= block.parent_slot) {
            change.run = earlier.joined_with(&change.run).ok_or(contradiction)?;
            change.replaced.push(*earlier);
        }
        let later = self.above(block.slot);
        if let Some(later) = later.filter(|run| run.first_parent_slot <= block.slot) {
            change.run = change.run.joined_with(later).ok_or(contradiction)?;
            change.replaced.push(*later);
        }
        Ok(change)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &BlockRun> {
        self.0.iter()
    }

    pub(super) fn apply(&mut self, change: &RunChange) {
        self.0.retain(|run| !change.replaced.contains(run));
        self.0.push(change.run);
        self.0.sort_by_key(|run| run.first_slot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A chain of empty blocks; `gaps` are the slots from each block to the next.
    fn chain(first_slot: u64, first_height: u64, gaps: &[u64]) -> Vec<FinalizedBlock> {
        numbered_chain(1, first_slot, first_height, gaps)
    }

    /// Chains of different numbers have no hash in common.
    fn numbered_chain(
        number: u8,
        first_slot: u64,
        first_height: u64,
        gaps: &[u64],
    ) -> Vec<FinalizedBlock> {
        let (mut slot, mut parent_slot) = (first_slot, first_slot - 1);
        let mut blocks = Vec::new();
        for (height, gap) in (first_height..).zip(gaps) {
            blocks.push(FinalizedBlock::of_chain(number, slot, height, parent_slot));
            parent_slot = slot;
            slot += gap;
        }
        blocks
    }

    fn life(slot: u64, last_valid_block_height: u64) -> BlockhashLife {
        BlockhashLife {
            slot,
            last_valid_block_height,
        }
    }

    fn placed(blocks: &[FinalizedBlock]) -> BlockRuns {
        let mut runs = BlockRuns::default();
        for block in blocks {
            let change = runs.place(block).unwrap();
            runs.apply(&change);
        }
        runs
    }

    #[test]
    fn a_life_spans_the_block_of_the_blockhash_and_151_more() {
        let run = *placed(&chain(5_000, 1_000, &[2; 152])).at(5_000).unwrap();
        assert!(run.covers(&life(5_000, 1_150)));
        let without_the_blockhashs_own_block = life(5_000, 1_149);
        assert!(!run.covers(&without_the_blockhashs_own_block));
        let without_the_last_block = life(5_000, 1_151);
        assert!(!run.covers(&without_the_last_block));
        let begins_after_the_slot = life(4_999, 1_150);
        assert!(!run.covers(&begins_after_the_slot));
    }

    #[test]
    fn blocks_that_cannot_belong_to_one_chain_are_refused() {
        let blocks = chain(5_000, 1_000, &[2; 10]);
        let runs = placed(&blocks);
        let block = |slot, parent_slot, height| FinalizedBlock::empty(slot, height, parent_slot);
        let foreign =
            |slot, parent_slot, height| FinalizedBlock::of_chain(2, slot, height, parent_slot);
        let last = blocks.last().unwrap();
        let refused = [
            ("read before", block(5_004, 5_002, 1_002)),
            (
                "between two that follow each other",
                block(5_003, 5_002, 1_002),
            ),
            ("its parent is inside the run", block(5_030, 5_010, 1_010)),
            (
                "its height does not follow",
                block(last.slot + 2, last.slot, last.height + 2),
            ),
            ("its own parent", block(6_000, 6_000, 1_400)),
            (
                "not the parent that the run names",
                block(4_999, 4_998, 998),
            ),
            (
                "its parent has another hash",
                foreign(last.slot + 2, last.slot, last.height + 1),
            ),
            (
                "the run names another hash as its parent's",
                foreign(4_999, 4_998, 999),
            ),
        ];
        for (why, block) in refused {
            assert!(runs.place(&block).is_err(), "{why}");
        }
        let fitting = [
            block(last.slot + 2, last.slot, last.height + 1),
            block(4_999, 4_998, 999),
        ];
        for block in fitting {
            assert!(runs.place(&block).is_ok(), "{block:?}");
        }
        assert!(
            runs.place(&block(4_990, 4_988, 990)).is_ok(),
            "it leaves a hole"
        );
        assert!(
            runs.place(&block(5_100, 5_098, 1_040)).is_ok(),
            "it leaves a hole"
        );
    }

    #[test]
    fn the_search_goes_back_to_the_blockhashs_block_and_then_forward() {
        let blocks = chain(5_000, 1_000, &[1; 300]);
        let wanted = life(5_105, 1_252);
        let mut runs = placed(&blocks[105..=105]);
        assert_eq!(runs.next_step(5_104, &wanted), Step::Begin);
        assert_eq!(runs.next_step(5_105, &wanted), Step::Parent(5_104));
        runs = placed(&blocks[102..=200]);
        assert_eq!(runs.next_step(5_105, &wanted), Step::After(5_200));
        // Another run further up that is needed too: the hole between is filled from its side.
        let mut both = blocks[102..=200].to_vec();
        both.extend_from_slice(&blocks[230..=260]);
        assert_eq!(placed(&both).next_step(5_105, &wanted), Step::Parent(5_229));
        let whole = placed(&blocks[102..=253]);
        let run = *whole.at(5_105).unwrap();
        assert_eq!(whole.next_step(5_105, &wanted), Step::Covered(run));
        // Heights that do not fit: the walk back ends.
        let never = life(5_105, 200);
        assert_eq!(
            placed(&blocks).next_step(5_105, &life(8_000, 200)),
            Step::TooFarBack
        );
        assert_eq!(
            placed(&blocks[100..]).next_step(5_105, &never),
            Step::Parent(5_099)
        );
    }

    proptest! {
        /// In whatever order blocks come, and whichever are lacking: a run that covers a life holds every block of it.
        #[test]
        fn a_run_that_covers_a_life_has_all_its_blocks(
            gaps in prop::collection::vec(prop_oneof![9 => 1_u64..6, 1 => 300_u64..3_000], 140..480),
            lacks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            shuffle in any::<u64>(),
            last_valid_block_height in 1_150_u64..1_470,
            slots_late in 0_u64..4,
        ) {
            use rand::SeedableRng;
            use rand::seq::SliceRandom;

            let whole = chain(5_000, 1_000, &gaps);
            let mut shown = whole.clone();
            for lack in lacks {
                shown.remove(lack.index(shown.len()));
            }
            shown.shuffle(&mut rand::rngs::StdRng::seed_from_u64(shuffle));
            let runs = placed(&shown);
            let first_height = last_valid_block_height - BLOCKHASH_LIFE;
            let first = whole.iter().find(|block| block.height == first_height);
            let slot = first.map_or(5_000, |block| block.slot) + slots_late;
            let covered = runs.0.iter().any(|run| run.covers(&life(slot, last_valid_block_height)));
            let heights: std::collections::HashSet<u64> = shown.iter().map(|block| block.height).collect();
            let is_whole = (first_height..=last_valid_block_height + 1).all(|height| heights.contains(&height));
            prop_assert_eq!(covered, is_whole);
            // No two runs touch, and together they hold exactly what was shown.
            let held: u64 = runs.0.iter().map(|run| run.last_height - run.first_height + 1).sum();
            prop_assert_eq!(held, shown.len() as u64);
        }

        /// An endpoint that shows blocks of two chains that count slots and heights alike: no run has blocks of both, because all is
        /// forgotten at the first contradiction.
        #[test]
        fn a_run_has_blocks_of_one_chain(
            gaps in prop::collection::vec(1_u64..4, 2..40),
            picks in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.1)), 1..120),
        ) {
            let chains = [1, 2].map(|number| numbered_chain(number, 5_000, 1_000, &gaps));
            let mut runs = BlockRuns::default();
            let mut held = std::collections::BTreeMap::new();
            for (index, is_foreign) in picks {
                let block = &chains[usize::from(is_foreign)][index.index(gaps.len())];
                if runs.at(block.slot).is_some() {
                    // A scan reads no block again.
                    continue;
                }
                match runs.place(block) {
                    Ok(change) => {
                        runs.apply(&change);
                        held.insert(block.slot, is_foreign);
                    }
                    Err(_) => {
                        runs = BlockRuns::default();
                        held.clear();
                    }
                }
                for run in runs.iter() {
                    let mut of_run = held.range(run.first_slot..=run.last_slot).map(|(_, it)| it);
                    let first = of_run.next();
                    prop_assert!(of_run.all(|is_foreign| Some(is_foreign) == first), "{:?}", run);
                }
            }
        }
    }
}
