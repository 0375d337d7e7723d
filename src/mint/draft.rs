//! An unsigned mint transaction: built from a packed one, with its own number from the ledger.

use solana_sdk::message::VersionedMessage;
use solana_sdk::pubkey::Pubkey;
use uuid::Uuid;

use super::affordability::Funded;
use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::costs::TransactionCosts;
use super::transaction::{self, SignError};
use crate::chain::{Reservation, TransactionFailure};
use crate::domain::{
    ComputePlan, Hash32, MintNumber, Packed, RequestedLimits, TransactionFormat, TransactionTerms,
    Wallet, set_limits,
};
use crate::ledger::{self, Blame};

/// A mint transaction before it is signed, and the readings that it pays, as they were when it was packed.
pub(super) struct Draft {
    pub number: MintNumber,
    pub packed: Packed,
    pub readings: Vec<Candidate>,
    pub message: VersionedMessage,
    compute: ComputePlan,
    pub format: TransactionFormat,
    pub costs: TransactionCosts,
    pub merkle_root: Hash32,
    /// Its part of the fee; a ceiling until the draft was simulated.
    pub priority_fee_lamports: u64,
    /// Its cost, set aside; a ceiling until the draft was simulated.
    pub reservation: Reservation,
}

/// Resources that a simulation used; `None` where the node does not report it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub compute_units: Option<u64>,
    /// Of account data.
    pub loaded_bytes: Option<u32>,
}

/// Builds a draft of each transaction. When no numbers can be reserved, all of their readings are deferred.
pub(super) async fn draft_all(
    context: &MintContext,
    transactions: Vec<Funded>,
    format: TransactionFormat,
    costs: TransactionCosts,
    answers: &mut Answers,
) -> Vec<Draft> {
    if transactions.is_empty() {
        return Vec::new();
    }
    let reserved = ledger::reserve_numbers(&context.pool, transactions.len());
    let numbers = match context.in_time(reserved).await {
        Ok(numbers) => numbers,
        Err(reason) => {
            answers.defer_rest(&reason);
            return Vec::new();
        }
    };
    let mut drafts = Vec::with_capacity(transactions.len());
    for (number, funded) in numbers.into_iter().zip(transactions) {
        let ids: Vec<Uuid> = funded.readings.iter().map(|reading| reading.id).collect();
        match Draft::new(context, number, funded, format, costs) {
            Ok(draft) => drafts.push(draft),
            Err(error) => answers.defer(&ids, &error.into()),
        }
    }
    drafts
}

impl Draft {
    fn new(
        context: &MintContext,
        number: MintNumber,
        funded: Funded,
        format: TransactionFormat,
        costs: TransactionCosts,
    ) -> Result<Draft, SignError> {
        let mut leaves: Vec<(Uuid, Hash32)> = funded
            .readings
            .iter()
            .map(|reading| (reading.id, reading.leaf_hash))
            .collect();
        let planned = transaction::message_of(
            &funded.packed,
            &mut leaves,
            number,
            &context.chain.accounts.mint,
            &context.signer,
            TransactionTerms {
                format,
                price: costs.price,
            },
        )?;
        Ok(Draft {
            number,
            packed: funded.packed,
            readings: funded.readings,
            message: planned.message,
            compute: planned.compute,
            format,
            costs,
            merkle_root: planned.merkle_root,
            priority_fee_lamports: costs.price.lamports_for(planned.compute.ceiling()),
            reservation: funded.reservation,
        })
    }

    pub fn reading_ids(&self) -> Vec<Uuid> {
        self.readings.iter().map(|reading| reading.id).collect()
    }

    /// Requests what the simulation used plus a margin, and returns the rest of the reservation. A draft with a reading that failed
    /// on chain before requests all that was planned, so that it cannot fail for lack of it.
    pub fn limit_to(&mut self, used: Used) {
        let failed_before = self.readings.iter().any(|reading| reading.pack_alone);
        let limits = if failed_before {
            RequestedLimits::ceiling(self.compute.ceiling())
        } else {
            let compute_units = self.compute.limit_after(used.compute_units);
            RequestedLimits::after(compute_units, used.loaded_bytes)
        };
        let price = self.costs.price;
        set_limits(&mut self.message, limits, price);
        self.priority_fee_lamports = price.lamports_for(limits.compute_units);
        self.reservation
            .lower_to(self.fee_lamports() + self.costs.rent(&self.packed));
    }

    /// For signatures and priority.
    pub fn fee_lamports(&self) -> u64 {
        self.costs.base_fee + self.priority_fee_lamports
    }

    /// The readings whose instruction the error names.
    pub fn to_blame(&self, error: &TransactionFailure, mint: &Pubkey) -> Vec<&Candidate> {
        let wallets: Vec<(Uuid, Wallet)> = self
            .readings
            .iter()
            .map(|reading| (reading.id, reading.wallet))
            .collect();
        let Blame::Readings(to_blame) = ledger::blame(&self.message, error, mint, &wallets) else {
            return Vec::new();
        };
        self.readings
            .iter()
            .filter(|reading| to_blame.contains(&reading.id))
            .collect()
    }
}
