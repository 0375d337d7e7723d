//! Counts what an audit has compared so far.

use std::collections::BTreeMap;

use super::checkpoints::Baseline;
use super::context::AuditContext;
use super::findings::Findings;
use super::landed_transactions::{Compared, LandedTotals};
use super::segment::Covered;
use super::sums::Minted;
use super::total::Total;
use super::unmatched_mints::UnmatchedMints;
use crate::domain::MintTransactionState;

/// The counts of one audit.
pub(super) struct Tally {
    pub landed: LandedTotals,
    pub minted: Minted,
    pub unmatched: UnmatchedMints,
    /// Transactions that the next checkpoints will cover; empty in an audit that stores none.
    pub covered: BTreeMap<i64, Covered>,
    /// Up to here the chain is final.
    final_slot: u64,
    stores_checkpoints: bool,
}

impl Tally {
    pub fn new(context: &AuditContext<'_>, stores_checkpoints: bool) -> Tally {
        Tally {
            landed: LandedTotals::default(),
            minted: Minted::until(context.supply),
            unmatched: UnmatchedMints::default(),
            covered: BTreeMap::new(),
            final_slot: context.final_slot,
            stores_checkpoints,
        }
    }

    /// Counts what earlier runs have compared as it was: both sides agreed, below the slot of the supply.
    pub fn count_covered(&mut self, baseline: &Baseline) {
        self.landed.transactions += baseline.transactions;
        self.landed.readings_minted += baseline.readings;
        self.landed.readings_finalized += baseline.readings;
        self.landed.base_units_ledger += baseline.base_units;
        self.landed.base_units_chain += baseline.base_units;
        self.minted.add(0, baseline.base_units);
    }

    pub fn count(&mut self, compared: Compared, findings: &mut Findings) {
        let Compared::Landed {
            booked,
            on_chain,
            differences,
        } = compared
        else {
            return;
        };
        self.landed.add(&booked, on_chain.as_deref());
        if let Some(on_chain) = &on_chain {
            self.unmatched.in_flight.remove(&on_chain.signature);
            for (_, base_units) in &on_chain.payments {
                self.minted.add(on_chain.slot, Total::from(*base_units));
            }
            if self.stores_checkpoints
                && differences.is_empty()
                && booked.state == MintTransactionState::Finalized
                && on_chain.slot <= self.final_slot
            {
                self.covered.insert(booked.number, Covered::of(&booked));
            }
        }
        findings.add(differences);
    }
}
