//! An unsigned mint transaction: built from a packed one, with a number of its own from the ledger.

use solana_sdk::message::Message;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::TransactionError;
use uuid::Uuid;

use super::affordability::Funded;
use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::costs::TransactionCosts;
use super::transaction::{self, SignError};
use crate::chain::Reservation;
use crate::domain::{ComputePlan, Hash32, MintNumber, Packed, Wallet, set_compute_unit_limit};
use crate::ledger::{self, Blame};

/// A mint transaction before it is signed, and the readings that it pays, as they were when it was packed.
pub(super) struct Draft {
    pub number: MintNumber,
    pub packed: Packed,
    pub readings: Vec<Candidate>,
    pub message: Message,
    compute: ComputePlan,
    pub costs: TransactionCosts,
    pub merkle_root: Hash32,
    /// Its part of the fee; a ceiling until the draft was simulated.
    pub priority_fee_lamports: u64,
    /// Its cost, set aside; a ceiling until the draft was simulated.
    pub reservation: Reservation,
}

/// Builds a draft of each transaction. When no numbers can be reserved, all of their readings are deferred.
pub(super) async fn draft_all(
    context: &MintContext,
    transactions: Vec<Funded>,
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
        match Draft::new(context, number, funded, costs) {
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
            costs.price,
        )?;
        Ok(Draft {
            number,
            packed: funded.packed,
            readings: funded.readings,
            message: planned.message,
            compute: planned.compute,
            costs,
            merkle_root: planned.merkle_root,
            priority_fee_lamports: costs.price.lamports_for(planned.compute.ceiling()),
            reservation: funded.reservation,
        })
    }

    pub fn reading_ids(&self) -> Vec<Uuid> {
        self.readings.iter().map(|reading| reading.id).collect()
    }

    /// Requests the compute units that the simulation consumed plus a margin, and returns the rest of the reservation. A draft
    /// with a reading that failed on chain before requests all planned units, so that it cannot fail for lack of them.
    pub fn limit_compute_units(&mut self, consumed: Option<u64>) {
        let failed_before = self.readings.iter().any(|reading| reading.pack_alone);
        let limit = if failed_before {
            self.compute.ceiling()
        } else {
            self.compute.limit_after(consumed)
        };
        set_compute_unit_limit(&mut self.message, limit);
        self.priority_fee_lamports = self.costs.price.lamports_for(limit);
        self.reservation
            .lower_to(self.fee_lamports() + self.costs.rent(&self.packed));
    }

    /// For signatures and priority.
    pub fn fee_lamports(&self) -> u64 {
        self.costs.base_fee + self.priority_fee_lamports
    }

    /// The readings whose instruction the error names.
    pub fn to_blame(&self, error: &TransactionError, mint: &Pubkey) -> Vec<&Candidate> {
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
