//! What of a batch the fee payer can pay.

use std::collections::HashSet;

use uuid::Uuid;

use super::batch::Batch;
use super::candidate::Candidate;
use super::minter::MintOutcome;
use crate::chain::{FeeBudget, Reservation, TOKEN_ACCOUNT_RENT_LAMPORTS};
use crate::domain::{
    COMPUTE_UNITS_MAX, CREATE_COMPUTE_UNITS_MAX, ComputeUnitPrice, PAYMENT_COMPUTE_UNITS_MAX,
    PackItem, Packed, Wallet, pack,
};
use crate::ledger;

/// Why readings wait that could be paid if the fee payer could pay their transaction's fee.
const NO_FEE: &str = "the fee payer's balance covers no further fee: it waits for a top-up";

/// The fee budget, and the price of a transaction.
struct Means<'a> {
    pub fee_budget: &'a FeeBudget,
    /// For the signatures of one mint transaction, lamports.
    pub base_fee: u64,
    /// Of each compute unit that it asks for.
    pub price: ComputeUnitPrice,
}

impl Means<'_> {
    /// Why a reading waits whose wallet has no token account yet.
    pub fn reason(&self) -> String {
        format!(
            "the fee payer's balance does not cover the {TOKEN_ACCOUNT_RENT_LAMPORTS} lamports of rent for the wallet's new \
             token account: it waits for a top-up, and no attempt is used"
        )
    }

    /// What the first reading of a wallet without account costs at most, lamports.
    pub fn of_a_new_wallet(&self) -> u64 {
        self.base_fee + self.price.lamports_for(PAYMENT_COMPUTE_UNITS_MAX) + self.of_a_creation()
    }

    /// An account and the compute units of its creation, lamports.
    fn of_a_creation(&self) -> u64 {
        TOKEN_ACCOUNT_RENT_LAMPORTS + self.price.lamports_for(CREATE_COMPUTE_UNITS_MAX)
    }

    /// What a transaction costs at most, lamports: what it will ask for is known once it was simulated.
    fn cost(&self, packed: &Packed) -> u64 {
        self.base_fee
            + self
                .price
                .lamports_for(packed.compute_units.min(COMPUTE_UNITS_MAX))
            + packed.account_creations() as u64 * TOKEN_ACCOUNT_RENT_LAMPORTS
    }

    /// The same without its account creations.
    fn fee_without_creations(&self, packed: &Packed) -> u64 {
        let compute_units = packed.compute_units - packed.creation_compute_units;
        self.base_fee + self.price.lamports_for(compute_units)
    }

    pub fn reserve(&self, packed: &Packed) -> Option<Reservation> {
        self.fee_budget.reserve(self.cost(packed))
    }

    /// Sets the cost of all of them aside, or leaves them as they are.
    pub fn reserve_all(
        &self,
        transactions: &mut Vec<Packed>,
    ) -> Option<Vec<(Packed, Reservation)>> {
        let reservations: Vec<Reservation> = transactions
            .iter()
            .map_while(|packed| self.reserve(packed))
            .collect();
        if reservations.len() < transactions.len() {
            return None;
        }
        Some(transactions.drain(..).zip(reservations).collect())
    }

    /// Of the payable, those whose wallets' accounts cannot be created beside the fees of these transactions: never none
    /// while some are to be created, so that asking again with the rest comes to an end. `payable` is in the order in which wallets are to be served.
    pub fn cannot_create(
        &self,
        payable: &[(Candidate, bool)],
        transactions: &[Packed],
    ) -> Vec<Uuid> {
        let mut new_wallets: Vec<Wallet> = Vec::new();
        let mut seen = HashSet::new();
        for (candidate, needs_account) in payable {
            if *needs_account && seen.insert(candidate.wallet) {
                new_wallets.push(candidate.wallet);
            }
        }
        let spendable = self.fee_budget.spendable();
        let fees = transactions
            .iter()
            .map(|packed| self.fee_without_creations(packed))
            .sum();
        let affordable =
            affordable_creations(spendable, fees, self.of_a_creation(), new_wallets.len());
        let refused: HashSet<Wallet> = new_wallets.drain(affordable..).collect();
        let mut waiting: Vec<Uuid> = payable
            .iter()
            .filter(|(candidate, _)| refused.contains(&candidate.wallet))
            .map(|(candidate, _)| candidate.id)
            .collect();
        // A wallet whose readings fill several transactions is to be created by each of them: its first reading alone costs
        // one account, and the rest needs none when that has landed.
        if affordable == 0 && waiting.len() > 1 && spendable >= self.of_a_new_wallet() {
            waiting.remove(0);
        }
        waiting
    }
}

impl Batch<'_> {
    /// Packs what the fee payer can pay, and sets its cost aside. When it cannot pay for every new token account, readings for
    /// wallets that have one go on and the newest of the others wait; when it cannot pay every fee, what is left waits.
    pub(super) async fn within_means(
        &mut self,
        payable: &mut Vec<(Candidate, bool)>,
        may_carry: bool,
    ) -> Vec<(Packed, Reservation)> {
        let means = Means {
            fee_budget: &self.workshop.tools.chain.fee_budget,
            base_fee: self.workshop.tools.chain.base_fee_lamports(),
            price: self.price,
        };
        // Ids are in the order of acceptance: who came first is paid first.
        payable.sort_unstable_by_key(|(candidate, _)| candidate.id);
        loop {
            let items = payable.iter().map(pack_item).collect();
            let mut transactions = pack(items, &self.pack_limits());
            self.refuse_oversized(&mut transactions, payable).await;
            if may_carry {
                self.carry_remainder(&mut transactions);
            }
            if let Some(reserved) = means.reserve_all(&mut transactions) {
                return reserved;
            }
            let waiting = means.cannot_create(payable, &transactions);
            if waiting.is_empty() {
                return self.pay_what_can_be(&means, transactions);
            }
            self.await_funds(&means, &waiting).await;
            payable.retain(|(candidate, _)| !self.answers.contains_key(&candidate.id));
        }
    }

    fn pay_what_can_be(
        &mut self,
        means: &Means<'_>,
        transactions: Vec<Packed>,
    ) -> Vec<(Packed, Reservation)> {
        let mut reserved = Vec::with_capacity(transactions.len());
        for packed in transactions {
            match means.reserve(&packed) {
                Some(reservation) => reserved.push((packed, reservation)),
                None => {
                    means.fee_budget.note_shortfall(means.cost(&packed));
                    self.workshop.tools.chain.circuit_breaker.check_now();
                    for reading in packed.readings {
                        self.answer(reading, MintOutcome::NotNow(NO_FEE.to_owned()));
                    }
                }
            }
        }
        reserved
    }

    async fn await_funds(&mut self, means: &Means<'_>, readings: &[Uuid]) {
        let reason = means.reason();
        means.fee_budget.note_shortfall(means.of_a_new_wallet());
        tracing::warn!(
            readings = readings.len(),
            reason,
            "readings for new wallets wait"
        );
        let noted = ledger::note_waiting(&self.workshop.pool, readings, &reason);
        if let Err(error) = self.in_time(noted).await {
            tracing::debug!(%error, "why the readings wait could not be noted on them");
        }
        for reading in readings {
            self.answer(*reading, MintOutcome::AwaitsFunds(reason.clone()));
        }
    }
}

fn pack_item((candidate, needs_account): &(Candidate, bool)) -> PackItem {
    PackItem {
        reading_id: candidate.id,
        wallet: candidate.wallet,
        base_units: candidate.base_units,
        needs_account: *needs_account,
        alone: candidate.pack_alone,
    }
}

/// How many of `wanted` accounts to create beside `fees`, at `each`: fewer than wanted, since all together could not be paid.
fn affordable_creations(spendable: u64, fees: u64, each: u64, wanted: usize) -> usize {
    let affordable = spendable.saturating_sub(fees) / each;
    usize::try_from(affordable)
        .unwrap_or(usize::MAX)
        .min(wanted.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENT: u64 = TOKEN_ACCOUNT_RENT_LAMPORTS;

    #[test]
    fn accounts_are_created_as_far_as_the_money_goes_and_always_fewer_than_were_too_many() {
        for (spendable, wanted, expected) in [
            (0, 5, 0),
            (RENT, 5, 0),
            (RENT + 10_000, 5, 1),
            (3 * RENT + 10_000, 5, 3),
            // The fee budget has changed since: still one fewer.
            (u64::MAX, 5, 4),
            (u64::MAX, 1, 0),
            (u64::MAX, 0, 0),
        ] {
            assert_eq!(
                affordable_creations(spendable, 10_000, RENT, wanted),
                expected
            );
        }
    }
    fn packed(compute_units: u32, creation_compute_units: u32, creations: usize) -> Packed {
        let payment = crate::domain::Payment {
            wallet: Wallet::from_stored([1; 32]),
            base_units: crate::domain::BaseUnits::new(1),
            create_account: true,
        };
        Packed {
            readings: Vec::new(),
            payments: vec![payment; creations],
            base_units: crate::domain::BaseUnits::new(1),
            compute_units,
            creation_compute_units,
            bytes: 500,
            full: false,
            oversized: false,
        }
    }

    #[test]
    fn the_ceiling_is_set_aside_with_the_priority_fee_that_it_asks_for() {
        let fee_budget = FeeBudget::default();
        let means = |micro_lamports| Means {
            fee_budget: &fee_budget,
            base_fee: 10_000,
            price: ComputeUnitPrice::from_micro_lamports(micro_lamports),
        };
        let two = packed(31_000 + 200_000, 200_000, 2);
        assert_eq!(means(0).cost(&two), 10_000 + 2 * RENT);
        assert_eq!(means(1_000_000).cost(&two), 10_000 + 231_000 + 2 * RENT);
        assert_eq!(
            means(1_000_000).fee_without_creations(&two),
            10_000 + 31_000
        );
        assert_eq!(means(1).cost(&two), 10_000 + 1 + 2 * RENT, "rounded up");
        let past_the_limit = packed(u32::MAX, 0, 0);
        assert_eq!(means(1_000_000).cost(&past_the_limit), 10_000 + 1_400_000);
        // The first reading of a new wallet: what packing plans for it.
        assert_eq!(
            means(1_000_000).of_a_new_wallet(),
            10_000 + 31_000 + 99_000 + RENT
        );
    }
}
