//! A model of everything that a proof rests on: random interleavings of recording, sending, landing, finality, reading by two
//! leaders, forks, adoption and pruning. What landed must never be proven dead; and each rule, once it is broken, must be missed.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::chain::blockhash::BLOCKHASH_LIFE;
use crate::domain::TxSignature;

/// The rules that the service keeps; each can be broken.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Signatures that are ours are looked up after the block was answered, not before it was requested.
    looks_up_after_the_answer: bool,
    /// Bytes are sent only once they are recorded.
    records_before_sending: bool,
    /// Confirmed transactions count as ours.
    counts_confirmed: bool,
    /// An adopted mint is stored as found.
    stores_adopted_as_found: bool,
    /// A run must reach one block above the last valid height.
    reads_the_block_above: bool,
}

const KEPT: Rules = Rules {
    looks_up_after_the_answer: true,
    records_before_sending: true,
    counts_confirmed: true,
    stores_adopted_as_found: true,
    reads_the_block_above: true,
};

impl Rules {
    /// The blocks that must have been read for this transaction.
    fn searched_for(&self, transaction: &Transaction) -> BlockhashLife {
        let mut life = transaction.life;
        if !self.reads_the_block_above {
            life.last_valid_block_height -= 1;
            life.slot += 1;
        }
        life
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Signed, unknown to the ledger.
    Signed,
    Recorded,
    Confirmed,
    Dead,
}

#[derive(Clone, Debug)]
struct Transaction {
    signature: TxSignature,
    life: BlockhashLife,
    state: State,
    sent: bool,
    /// Of the block that holds it.
    landed_in: Option<u64>,
}

#[derive(Default)]
struct Leader {
    /// As it loaded or wrote them last.
    runs: BlockRuns,
    answered: Option<FinalizedBlock>,
    ours: Option<HashSet<TxSignature>>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Sign,
    Record(usize),
    Send(usize),
    /// Records, sends and lands one at once, in a block that is final.
    Land(usize),
    /// Blocks are made; those that were sent land in the first of them.
    Produce {
        blocks: u64,
        skipped: u64,
    },
    /// As many as lead to the last height at which a transaction is valid, or one above or below it.
    ProduceToEnd {
        transaction: usize,
        beyond: u64,
    },
    Finalize {
        all_but: u64,
    },
    Confirm(usize),
    Fork(usize),
    Adopt(usize),
    Load(usize),
    /// One leader reads up to so many blocks for a transaction. Other events come between its steps now and then.
    Read {
        leader: usize,
        transaction: usize,
        blocks: u32,
    },
    Prove,
    Prune,
}

struct World {
    rules: Rules,
    blocks: Vec<FinalizedBlock>,
    finalized: usize,
    transactions: Vec<Transaction>,
    stored: BlockRuns,
    found: HashSet<TxSignature>,
    leaders: [Leader; 2],
    /// Something landed and was proven dead.
    is_broken: bool,
}

impl World {
    fn new(rules: Rules) -> World {
        let mut world = World {
            rules,
            blocks: Vec::new(),
            finalized: 0,
            transactions: Vec::new(),
            stored: BlockRuns::default(),
            found: HashSet::new(),
            leaders: Default::default(),
            is_broken: false,
        };
        world.produce(10, 0);
        world.finalized = world.blocks.len();
        world
    }

    fn newest(&self) -> (u64, u64) {
        self.blocks
            .last()
            .map_or((99, 999), |block| (block.slot, block.height))
    }

    fn produce(&mut self, blocks: u64, skipped: u64) {
        for block in 0..blocks {
            let (parent_slot, parent_height) = self.newest();
            let (slot, height) = (parent_slot + 1 + skipped, parent_height + 1);
            let mut signatures = Vec::new();
            for transaction in &mut self.transactions {
                let is_valid = height <= transaction.life.last_valid_block_height + 1;
                if block == 0 && transaction.sent && transaction.landed_in.is_none() && is_valid {
                    self.is_broken |= transaction.state == State::Dead;
                    transaction.landed_in = Some(slot);
                    signatures.push(transaction.signature);
                }
            }
            self.blocks.push(FinalizedBlock {
                signatures,
                ..FinalizedBlock::empty(slot, height, parent_slot)
            });
        }
    }

    fn open(&self) -> HashSet<TxSignature> {
        let counts_confirmed = self.rules.counts_confirmed;
        let is_open = |transaction: &&Transaction| match transaction.state {
            State::Recorded => true,
            State::Confirmed => counts_confirmed,
            State::Signed | State::Dead => false,
        };
        let open = self.transactions.iter().filter(is_open);
        open.map(|transaction| transaction.signature).collect()
    }

    fn transaction(&mut self, index: usize) -> Option<&mut Transaction> {
        let count = self.transactions.len();
        (count > 0).then(|| &mut self.transactions[index % count])
    }

    fn is_final(&self, slot: u64) -> bool {
        self.blocks[..self.finalized]
            .last()
            .is_some_and(|block| block.slot >= slot)
    }

    fn happen(&mut self, event: Event, random: &mut StdRng) {
        let rules = self.rules;
        match event {
            Event::Sign => {
                let (slot, height) = self.newest();
                let mut bytes = [0; TxSignature::BYTES];
                bytes[0] = 1 + u8::try_from(self.transactions.len()).unwrap_or(u8::MAX);
                self.transactions.push(Transaction {
                    signature: TxSignature::from_bytes(bytes),
                    life: BlockhashLife {
                        slot,
                        last_valid_block_height: height + BLOCKHASH_LIFE,
                    },
                    state: State::Signed,
                    sent: false,
                    landed_in: None,
                });
            }
            Event::Record(index) => {
                if let Some(transaction) = self.transaction(index)
                    && transaction.state == State::Signed
                    && (transaction.landed_in.is_none() || !rules.records_before_sending)
                {
                    transaction.state = State::Recorded;
                }
            }
            Event::Send(index) => {
                if let Some(transaction) = self.transaction(index) {
                    let may_send = match transaction.state {
                        State::Recorded => true,
                        // What was recorded in a ledger that was lost is signed and sent here as well: only adoption brings
                        // it back.
                        State::Signed => index % 3 == 0 || !rules.records_before_sending,
                        State::Confirmed | State::Dead => false,
                    };
                    transaction.sent |= may_send;
                }
            }
            Event::Land(index) => {
                for event in [Event::Record(index), Event::Send(index)] {
                    self.happen(event, random);
                }
                self.produce(1, 0);
                self.finalized = self.blocks.len();
            }
            Event::Produce { blocks, skipped } => self.produce(blocks, skipped),
            Event::ProduceToEnd {
                transaction,
                beyond,
            } => {
                let (_, height) = self.newest();
                let last = self.transaction(transaction);
                let last = last.map_or(0, |one| one.life.last_valid_block_height);
                self.produce((last + beyond).saturating_sub(height + 1), 0);
            }
            Event::Finalize { all_but } => {
                let all_but = usize::try_from(all_but).unwrap_or_default();
                self.finalized = self
                    .finalized
                    .max(self.blocks.len().saturating_sub(all_but));
            }
            Event::Confirm(index) => {
                if let Some(transaction) = self.transaction(index)
                    && transaction.state == State::Recorded
                    && transaction.landed_in.is_some()
                {
                    transaction.state = State::Confirmed;
                }
            }
            // No endpoint shows it any more: truly forked or not.
            Event::Fork(index) => {
                if let Some(transaction) = self.transaction(index)
                    && transaction.state == State::Confirmed
                {
                    transaction.state = State::Recorded;
                }
            }
            Event::Adopt(index) => self.adopt(index),
            Event::Load(leader) => {
                self.leaders[leader] = Leader {
                    runs: self.stored.clone(),
                    ..Leader::default()
                };
            }
            Event::Read {
                leader,
                transaction,
                blocks,
            } => self.read(leader, transaction, blocks, random),
            Event::Prove => self.prove(),
            Event::Prune => {
                let open = self.open();
                self.found.retain(|signature| open.contains(signature));
            }
        }
    }

    fn adopt(&mut self, index: usize) {
        let height = self.blocks[..self.finalized]
            .last()
            .map_or(0, |block| block.height);
        let Some(transaction) = self.transaction(index) else {
            return;
        };
        let Some(slot) = transaction.landed_in else {
            return;
        };
        if transaction.state != State::Signed || !self.is_final(slot) {
            return;
        }
        let rules = self.rules;
        let transaction = self.transaction(index).expect("it is there");
        transaction.state = State::Confirmed;
        transaction.life = BlockhashLife {
            slot,
            last_valid_block_height: height,
        };
        let signature = transaction.signature;
        if rules.stores_adopted_as_found {
            self.found.insert(signature);
        }
    }

    fn read(&mut self, leader: usize, transaction: usize, blocks: u32, random: &mut StdRng) {
        for _ in 0..blocks {
            self.look_up_ours(leader);
            self.interrupt(random);
            self.request(leader, transaction);
            if self.leaders[leader].answered.is_none() {
                return;
            }
            self.interrupt(random);
            self.look_up_ours(leader);
            self.interrupt(random);
            self.save(leader);
        }
    }

    fn interrupt(&mut self, random: &mut StdRng) {
        if random.random_bool(1.0 / 100.0) {
            for _ in 0..random.random_range(1..8) {
                self.happen(short_event(random), random);
            }
        }
    }

    fn look_up_ours(&mut self, leader: usize) {
        let is_answered = self.leaders[leader].answered.is_some();
        if is_answered == self.rules.looks_up_after_the_answer {
            self.leaders[leader].ours = Some(self.open());
        }
    }

    fn request(&mut self, leader: usize, transaction: usize) {
        let rules = self.rules;
        let Some(life) = self
            .transaction(transaction)
            .map(|transaction| rules.searched_for(transaction))
        else {
            return;
        };
        let finals = &self.blocks[..self.finalized];
        // The first one above the slot.
        let above = |slot: u64| finals.partition_point(|block| block.slot <= slot);
        let up_to = |slot: u64| above(slot).checked_sub(1).map(|index| &finals[index]);
        let at = |slot: u64| up_to(slot).filter(|block| block.slot == slot);
        let begins_at = up_to(life.slot);
        let leader = &mut self.leaders[leader];
        let stands_at = begins_at.map_or(life.slot, |block| block.slot);
        let block = match leader.runs.next_step(stands_at, &life) {
            Step::Covered(_) | Step::TooFarBack => None,
            Step::Begin => begins_at,
            Step::Parent(slot) => at(slot),
            Step::After(slot) => finals.get(above(slot)),
        };
        if self.rules.looks_up_after_the_answer {
            leader.ours = None;
        }
        leader.answered = block.cloned();
    }

    fn save(&mut self, leader: usize) {
        let leader = &mut self.leaders[leader];
        let (Some(block), Some(ours)) = (leader.answered.take(), leader.ours.take()) else {
            return;
        };
        let Ok(change) = leader.runs.place(&block) else {
            // Two leaders wrote runs that touch and are not joined: they are read anew.
            (self.stored, leader.runs) = Default::default();
            return;
        };
        let is_stored = |run: &BlockRun| self.stored.at(run.first_slot) == Some(run);
        let is_fresh = change.replaced.iter().all(is_stored)
            && (!change.replaced.is_empty() || self.stored.at(block.slot).is_none());
        if !is_fresh {
            return;
        }
        self.stored.apply(&change);
        leader.runs.apply(&change);
        let found = block.signatures.iter().filter(|one| ours.contains(one));
        self.found.extend(found);
    }

    fn prove(&mut self) {
        for transaction in &mut self.transactions {
            let life = self.rules.searched_for(transaction);
            let is_covered = self.stored.iter().any(|run| run.covers(&life));
            if transaction.state == State::Recorded
                && is_covered
                && !self.found.contains(&transaction.signature)
            {
                self.is_broken |= transaction.landed_in.is_some();
                transaction.state = State::Dead;
            }
        }
    }
}

/// Few, so that events often concern the same one.
const TRANSACTIONS: usize = 3;

/// An event that a read in progress can be interrupted by.
fn short_event(random: &mut StdRng) -> Event {
    let transaction = random.random_range(0..TRANSACTIONS);
    match random.random_range(0..22) {
        20 | 21 => Event::Land(transaction),
        0 | 1 => Event::Sign,
        2..=4 => Event::Record(transaction),
        5..=7 => Event::Send(transaction),
        8 | 9 => Event::Produce {
            blocks: random.random_range(1..4),
            skipped: random.random_range(0..3),
        },
        10..=12 => Event::Finalize {
            all_but: random.random_range(0..3),
        },
        13 | 14 => Event::Confirm(transaction),
        15 | 16 => Event::Fork(transaction),
        17 => Event::Adopt(transaction),
        18 => Event::Load(random.random_range(0..2)),
        _ => Event::Prune,
    }
}

fn event(random: &mut StdRng) -> Event {
    let transaction = random.random_range(0..TRANSACTIONS);
    match random.random_range(0..20) {
        0 | 1 => Event::ProduceToEnd {
            transaction,
            beyond: random.random_range(0..3),
        },
        2..=4 => Event::Read {
            leader: random.random_range(0..2),
            transaction,
            blocks: random.random_range(1..300),
        },
        5 => Event::Prove,
        _ => short_event(random),
    }
}

/// Whether this run breaks the promise.
fn breaks(rules: Rules, seed: u64) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(rules);
    for _ in 0..random.random_range(20..120) {
        world.happen(event(&mut random), &mut random);
        if world.is_broken {
            return true;
        }
    }
    world.prove();
    world.is_broken
}

#[test]
fn what_landed_is_never_proven_dead() {
    for seed in 0..1_000 {
        assert!(!breaks(KEPT, seed), "seed {seed}");
    }
}

#[test]
fn proofs_come_about() {
    let mut random = StdRng::seed_from_u64(1);
    let mut world = World::new(KEPT);
    for event in [Event::Sign, Event::Record(0)] {
        world.happen(event, &mut random);
    }
    world.produce(160, 1);
    world.finalized = world.blocks.len();
    for _ in 0..200 {
        world.request(0, 0);
        world.look_up_ours(0);
        world.save(0);
    }
    world.prove();
    assert_eq!(world.transactions[0].state, State::Dead);
}

#[test]
fn each_rule_is_missed_once_it_is_broken() {
    let broken: [fn(&mut Rules); 5] = [
        |rules| rules.looks_up_after_the_answer = false,
        |rules| rules.records_before_sending = false,
        |rules| rules.counts_confirmed = false,
        |rules| rules.stores_adopted_as_found = false,
        |rules| rules.reads_the_block_above = false,
    ];
    for break_rule in broken {
        let mut rules = KEPT;
        break_rule(&mut rules);
        assert!((0..5_000).any(|seed| breaks(rules, seed)), "{rules:?}");
    }
}
