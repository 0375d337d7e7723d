//! Reads finalized blocks, one after the other, until they prove that transactions did not land: the only proof there is.
//!
//! "Not found" from a status call proves nothing: a node may lag, may have pruned its history, may be one of a mixed pool. Proof
//! is an unbroken run of finalized blocks over the whole life of the transaction's blockhash, none of which holds the
//! signature ([`super::block_run`]).
//!
//! A scan is a cursor: each block is stored, by [`RunStore::save`], before the next one is read, and no block that was stored is
//! read again. So an interruption (a rate limit, a restart, another leader) costs at most the block under way, and any number of
//! transactions share the blocks. Of a block only the store's own signatures are kept.
//!
//! Each endpoint has runs of its own. Finalized blocks are the same everywhere, so runs of several endpoints could be joined; but
//! then one endpoint that shows a wrong parent or height would break the runs of all others, and what an endpoint showed could
//! not be dropped when it contradicts itself. Apart, an endpoint harms only its own runs, at the price of reading a block once
//! per endpoint where no single endpoint has them all.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::block_run::{BlockRun, BlockRuns, BlockhashLife, LOOK_BACK_SLOTS, RunChange, Step};
use super::finalized_block::FinalizedBlock;
use super::finalized_blocks::{read_block, slots_after, slots_up_to};
use super::no_proof::NoProof;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::NoAnswer;
use crate::telemetry::names;

/// Slots in a row that an endpoint may list and not show before it counts as one without history.
const NOT_SHOWN_IN_A_ROW_MAX: usize = 8;
/// Calls that a scan makes whatever time they take: each scan begins with calls of its own.
const CALLS_PER_SCAN_MIN: usize = 32;

/// One call, with its turn and the pause that the endpoint may have requested. Past it another endpoint is searched; what was read
/// stays.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Stores what was read of one endpoint.
pub trait RunStore {
    type Error;

    /// Stores the change, and those of the block's signatures that are the store's own.
    ///
    /// It is called once the block was answered, and must look up *then*, not earlier, which signatures are its own: one
    /// that was recorded while the block was being read may be in it.
    fn save(
        &mut self,
        block: &FinalizedBlock,
        change: &RunChange,
    ) -> impl Future<Output = Result<Saved, Self::Error>> + Send;

    /// Drops all runs of the endpoint.
    fn forget(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Whether a change was stored.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    Stored,
    /// Another process has changed the runs meanwhile: nothing was stored.
    Stale,
}

/// How far the search for one proof came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanOutcome {
    /// This run has every block that could hold the transaction.
    Covered(BlockRun),
    /// The endpoint has not finalized the last of the blocks yet.
    NotYet,
    /// The scan has run for long enough: the next one continues.
    Unfinished,
    /// The endpoint lacks a block.
    Blocked(NoProof),
}

/// Why a scan of this endpoint ends, for whatever transaction.
#[derive(Debug)]
pub enum ScanError<E> {
    /// It did not answer, or cannot answer such calls.
    Endpoint(ChainError),
    /// What it shows contradicts itself; its runs were dropped.
    Contradiction(NoProof),
    /// Another process reads the same blocks.
    Stale,
    Store(E),
}

/// One scan of one endpoint.
pub struct BlockScan<'a, S> {
    endpoint: &'a Endpoint,
    store: S,
    runs: BlockRuns,
    /// Slots that the endpoint listed after `listed_after`.
    listed: Vec<u64>,
    listed_after: u64,
    /// The endpoint has no newer finalized block than this slot, as far as this scan knows.
    nothing_after: Option<u64>,
    /// Blocks that it did not show in this scan.
    not_shown: HashMap<u64, NoProof>,
    /// Slots at which no run can begin, and why: the endpoint lists or shows no block there.
    no_begin: Vec<(RangeInclusive<u64>, NoProof)>,
    ends_at: Instant,
    calls: usize,
    blocks_read: usize,
}

/// What interrupts the search for one proof.
enum Interruption<E> {
    Ends(ScanOutcome),
    EndsScan(ScanError<E>),
}

impl<E> From<ChainError> for Interruption<E> {
    fn from(error: ChainError) -> Interruption<E> {
        Interruption::EndsScan(ScanError::Endpoint(error))
    }
}

fn blocked<E>(no_proof: NoProof) -> Interruption<E> {
    Interruption::Ends(ScanOutcome::Blocked(no_proof))
}

impl<'a, S: RunStore> BlockScan<'a, S> {
    /// `runs` are those of the endpoint, as the store has them now. Past `ends_at` the scan ends at the next block.
    pub fn new(
        endpoint: &'a Endpoint,
        store: S,
        runs: BlockRuns,
        ends_at: Instant,
    ) -> BlockScan<'a, S> {
        BlockScan {
            endpoint,
            store,
            runs,
            listed: Vec::new(),
            listed_after: 0,
            nothing_after: None,
            not_shown: HashMap::new(),
            no_begin: Vec::new(),
            ends_at,
            calls: 0,
            blocks_read: 0,
        }
    }

    pub fn blocks_read(&self) -> usize {
        self.blocks_read
    }

    /// Reads the blocks that are lacking for this life. The endpoint's chain must have been checked.
    pub async fn search(
        &mut self,
        life: &BlockhashLife,
    ) -> Result<ScanOutcome, ScanError<S::Error>> {
        let mut stands_at = life.slot;
        if self.is_over() {
            return Ok(ScanOutcome::Unfinished);
        }
        loop {
            let step = self.runs.next_step(stands_at, life);
            let read = match step {
                Step::Covered(run) => return Ok(ScanOutcome::Covered(run)),
                Step::TooFarBack => Err(blocked(self.no_start(life))),
                Step::Begin => self.begin(life).await.map(|slot| stands_at = slot),
                Step::Parent(slot) => self.read(slot).await,
                Step::After(slot) => self.read_after(slot).await,
            };
            match read {
                Ok(()) if self.is_over() => return Ok(ScanOutcome::Unfinished),
                Ok(()) => {}
                Err(Interruption::Ends(outcome)) => return Ok(outcome),
                Err(Interruption::EndsScan(error)) => return Err(error),
            }
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends_at && self.calls >= CALLS_PER_SCAN_MIN
    }

    async fn in_time<T, E: From<ChainError>>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let no_answer = || ChainError::Unreachable {
            endpoint: self.endpoint.name().to_owned(),
            method: "a question about blocks",
            reason: NoAnswer::NotWithin(CALL_LIMIT),
        };
        tokio::time::timeout(CALL_LIMIT, call)
            .await
            .unwrap_or_else(|_| Err(no_answer().into()))
    }

    fn no_start(&self, life: &BlockhashLife) -> NoProof {
        NoProof::NoStart {
            endpoint: self.endpoint.name().to_owned(),
            slot: life.slot,
        }
    }

    /// Finds the newest block at or below the life's slot and reads it, unless it is in a run. Returns its slot.
    async fn begin(&mut self, life: &BlockhashLife) -> Result<u64, Interruption<S::Error>> {
        let known = self
            .no_begin
            .iter()
            .find(|(slots, _)| slots.contains(&life.slot));
        if let Some((_, no_proof)) = known {
            return Err(blocked(no_proof.clone()));
        }
        self.calls += 1;
        let listed = self.in_time(slots_up_to(self.endpoint, life.slot)).await?;
        let mut lowest = life.slot.saturating_sub(LOOK_BACK_SLOTS);
        let mut why = None;
        for slot in listed.into_iter().rev().take(NOT_SHOWN_IN_A_ROW_MAX) {
            if self.runs.at(slot).is_some() {
                return Ok(slot);
            }
            lowest = slot;
            match self.read(slot).await {
                Ok(()) => return Ok(slot),
                // An older one is enough: the search meets the hole when it reaches it.
                Err(Interruption::Ends(ScanOutcome::Blocked(
                    not_shown @ NoProof::NotShown { .. },
                ))) => {
                    why.get_or_insert(not_shown);
                }
                Err(interruption) => return Err(interruption),
            }
        }
        let why = why.unwrap_or_else(|| self.no_start(life));
        self.no_begin.push((lowest..=life.slot, why.clone()));
        Err(blocked(why))
    }

    /// Reads the next block after this slot, the last one of a run.
    async fn read_after(&mut self, slot: u64) -> Result<(), Interruption<S::Error>> {
        let mut after = slot;
        for tries_left in (0..NOT_SHOWN_IN_A_ROW_MAX).rev() {
            let Some(next) = self.next_listed(after).await? else {
                return Err(Interruption::Ends(ScanOutcome::NotYet));
            };
            if let Some(later) = self.runs.at(next).copied() {
                // The list led to a block that was read before: the block that it names as its parent was not listed.
                return self.read(later.first_parent_slot).await;
            }
            match self.read(next).await {
                // The slot may have been skipped after all: the parent of the next block decides.
                Err(Interruption::Ends(ScanOutcome::Blocked(NoProof::NotShown { .. })))
                    if tries_left > 0 =>
                {
                    after = next;
                }
                read => return read,
            }
        }
        Ok(())
    }

    /// The lowest listed slot above `slot`; `None` when the endpoint has no newer finalized block.
    async fn next_listed(&mut self, slot: u64) -> Result<Option<u64>, ChainError> {
        if self.listed_after > slot {
            self.listed.clear();
        }
        self.listed.retain(|listed| *listed > slot);
        if self.listed.is_empty() {
            if self.nothing_after.is_some_and(|newest| newest <= slot) {
                return Ok(None);
            }
            self.calls += 1;
            self.listed = self.in_time(slots_after(self.endpoint, slot)).await?;
            self.listed_after = slot;
            if self.listed.is_empty() {
                self.nothing_after = Some(slot);
            }
        }
        Ok(self.listed.first().copied())
    }

    /// Reads one block and stores it.
    async fn read(&mut self, slot: u64) -> Result<(), Interruption<S::Error>> {
        if let Some(no_proof) = self.not_shown.get(&slot) {
            return Err(blocked(no_proof.clone()));
        }
        self.calls += 1;
        let block = match self.in_time(read_block(self.endpoint, slot)).await {
            Ok(block) => block,
            Err(NoProof::Chain(error)) => return Err(error.into()),
            Err(no_proof) => {
                self.not_shown.insert(slot, no_proof.clone());
                return Err(blocked(no_proof));
            }
        };
        self.blocks_read += 1;
        metrics::counter!(names::PROOF_BLOCKS_READ).increment(1);
        let ends_scan = Interruption::EndsScan;
        let change = match self.runs.place(&block) {
            Ok(change) => change,
            Err(contradiction) => {
                self.store
                    .forget()
                    .await
                    .map_err(|error| ends_scan(ScanError::Store(error)))?;
                let endpoint = self.endpoint.name().to_owned();
                return Err(ends_scan(ScanError::Contradiction(
                    NoProof::Contradiction {
                        endpoint,
                        contradiction,
                    },
                )));
            }
        };
        match self.store.save(&block, &change).await {
            Ok(Saved::Stored) => {
                self.runs.apply(&change);
                Ok(())
            }
            Ok(Saved::Stale) => Err(ends_scan(ScanError::Stale)),
            Err(error) => Err(ends_scan(ScanError::Store(error))),
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
