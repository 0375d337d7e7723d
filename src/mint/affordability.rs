//! Step 4 of the pipeline: trims a batch to what the fee payer can afford, and reserves its cost.
//!
//! When the balance does not cover every new token account, readings for wallets that have one are paid, and the newest of the
//! others wait; when it does not cover every fee, what is left waits. An account is bought only if the fees of some more
//! transactions stay: otherwise wallets that have one would wait behind it, in later batches.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::candidate::{Candidate, Payable};
use super::costs::TransactionCosts;
use super::pack::Packing;
use crate::chain::{FeeBudget, Reservation};
use crate::domain::{BaseUnits, PackItem, Packed, Wallet};

/// A packed transaction with its readings, and its cost reserved.
pub(super) struct Funded {
    pub packed: Packed,
    pub readings: Vec<Candidate>,
    pub reservation: Reservation,
}

/// The transactions that leave now, and the readings that do not.
#[derive(Default)]
pub(super) struct Plan {
    pub funded: Vec<Funded>,
    pub left_out: LeftOut,
}

/// Readings of a batch that do not leave with it, by the reason.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Readings that exceed the limits of a transaction on their own, with their amounts.
    pub oversized: Vec<(Candidate, BaseUnits)>,
    /// They wait for the next batch.
    pub carried: Vec<Uuid>,
    /// The balance does not cover the rent of their wallets' new token accounts.
    pub without_rent: Vec<Uuid>,
    /// The balance does not cover the fee of their transaction.
    pub without_fee: Vec<Uuid>,
}

/// Packs with `pack`, and packs again without the readings that have to wait for funds, until the rest is funded.
pub(super) fn fit_to_budget(
    mut payable: Vec<Payable>,
    budget: &FeeBudget,
    costs: &TransactionCosts,
    pack: impl Fn(Vec<PackItem>) -> Packing,
) -> Plan {
    // Ids are in the order of acceptance: readings that were accepted first are paid first.
    payable.sort_unstable_by_key(|payable| payable.candidate.id);
    let mut left_out = LeftOut::default();
    let reserved = loop {
        let packing = pack(payable.iter().map(Payable::pack_item).collect());
        left_out.take_oversized(&mut payable, &packing.oversized);
        left_out.carried.extend(packing.carried);
        let transactions = match reserve_all(budget, costs, packing.leaving) {
            Ok(reserved) => break reserved,
            Err(transactions) => transactions,
        };
        let waiting = cannot_create(budget, costs, &payable, &transactions);
        if waiting.is_empty() {
            break reserve_some(budget, costs, transactions, &mut left_out.without_fee);
        }
        budget.note_shortfall(costs.of_new_wallet() + costs.fees_kept());
        left_out
            .carried
            .retain(|reading| !waiting.contains(reading));
        left_out.without_rent.extend(waiting);
        payable.retain(|payable| !left_out.includes(payable.candidate.id));
    };
    let mut by_id: HashMap<Uuid, Candidate> = payable
        .into_iter()
        .map(|payable| (payable.candidate.id, payable.candidate))
        .collect();
    let funded = reserved.into_iter().map(|(packed, reservation)| Funded {
        readings: packed
            .readings
            .iter()
            .filter_map(|id| by_id.remove(id))
            .collect(),
        packed,
        reservation,
    });
    Plan {
        funded: funded.collect(),
        left_out,
    }
}

impl LeftOut {
    fn take_oversized(&mut self, payable: &mut Vec<Payable>, oversized: &[Packed]) {
        for packed in oversized {
            let readings = payable.extract_if(.., |payable| {
                packed.readings.contains(&payable.candidate.id)
            });
            self.oversized
                .extend(readings.map(|payable| (payable.candidate, packed.base_units)));
        }
    }

    fn includes(&self, reading: Uuid) -> bool {
        self.carried.contains(&reading) || self.without_rent.contains(&reading)
    }
}

type Reserved = Vec<(Packed, Reservation)>;

/// Reserves the cost of all of them, or of none: then it returns them.
fn reserve_all(
    budget: &FeeBudget,
    costs: &TransactionCosts,
    transactions: Vec<Packed>,
) -> Result<Reserved, Vec<Packed>> {
    let reservations: Vec<Reservation> = transactions
        .iter()
        .map_while(|packed| {
            let rest = if packed.account_creations() > 0 {
                costs.fees_kept()
            } else {
                0
            };
            budget.reserve_leaving(costs.ceiling(packed), rest)
        })
        .collect();
    if reservations.len() < transactions.len() {
        return Err(transactions);
    }
    Ok(transactions.into_iter().zip(reservations).collect())
}

/// Reserves the cost of each transaction that the balance still covers; the readings of the others go to `without_fee`.
fn reserve_some(
    budget: &FeeBudget,
    costs: &TransactionCosts,
    transactions: Vec<Packed>,
    without_fee: &mut Vec<Uuid>,
) -> Reserved {
    let mut reserved = Vec::with_capacity(transactions.len());
    for packed in transactions {
        let cost = costs.ceiling(&packed);
        match budget.reserve(cost) {
            Some(reservation) => reserved.push((packed, reservation)),
            None => {
                budget.note_shortfall(cost);
                without_fee.extend(packed.readings);
            }
        }
    }
    reserved
}

/// The readings whose wallets' token accounts cannot be created in addition to the fees of these transactions. It returns at least
/// one while any account is to be created, so that packing again with the rest comes to an end. `payable` is in the order in which
/// wallets are served.
fn cannot_create(
    budget: &FeeBudget,
    costs: &TransactionCosts,
    payable: &[Payable],
    transactions: &[Packed],
) -> HashSet<Uuid> {
    let mut new_wallets: Vec<Wallet> = Vec::new();
    let mut seen = HashSet::new();
    for payable in payable.iter().filter(|payable| payable.needs_account) {
        if seen.insert(payable.candidate.wallet) {
            new_wallets.push(payable.candidate.wallet);
        }
    }
    let spendable = budget.spendable().saturating_sub(costs.fees_kept());
    let fees = transactions
        .iter()
        .map(|packed| costs.fee_without_creations(packed))
        .sum();
    let affordable = affordable_creations(spendable, fees, costs.of_creation(), new_wallets.len());
    let unaffordable: HashSet<Wallet> = new_wallets.drain(affordable..).collect();
    let mut waiting = payable
        .iter()
        .filter(|payable| unaffordable.contains(&payable.candidate.wallet))
        .map(|payable| payable.candidate.id);
    // A wallet whose readings fill several transactions is to be created by each of them. Its first reading alone costs one
    // account, and the rest needs none once that reading has landed.
    let first_is_affordable = affordable == 0 && spendable >= costs.of_new_wallet();
    let first = waiting.next();
    let rest: HashSet<Uuid> = waiting.collect();
    match first {
        Some(first) if !first_is_affordable || rest.is_empty() => {
            rest.into_iter().chain([first]).collect()
        }
        _ => rest,
    }
}

/// Number of `wanted` accounts to create in addition to `fees`, at `each`: fewer than wanted, since the budget did not cover all.
fn affordable_creations(spendable: u64, fees: u64, each: u64, wanted: usize) -> usize {
    let affordable = spendable.saturating_sub(fees) / each;
    usize::try_from(affordable)
        .unwrap_or(usize::MAX)
        .min(wanted.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;
    use solana_sdk::pubkey::Pubkey;

    use super::super::pack::pack;
    use super::*;
    use crate::chain::Funds;
    use crate::domain::{COMPUTE_UNITS_MAX, ComputeUnitPrice, PackLimits, TransactionFormat};

    const RENT: u64 = 1_488_440;

    const LIMITS: PackLimits = PackLimits {
        format: TransactionFormat::Legacy,
        max_readings: 5,
        max_base_units: BaseUnits::new(100),
        max_bytes: TransactionFormat::Legacy.bytes_max(),
        max_compute_units: COMPUTE_UNITS_MAX,
        separate_fee_payer: false,
        priced: true,
    };

    fn payable(number: u128, wallet: u8, base_units: u64, needs_account: bool) -> Payable {
        Payable {
            candidate: Candidate {
                id: Uuid::from_u128(number),
                revision: 0,
                wallet: Wallet::from_stored([wallet; 32]),
                base_units: BaseUnits::new(base_units),
                pack_alone: false,
                account_was_there: !needs_account,
                leaf_hash: [0; 32],
                accepted_at: Utc::now(),
                trace: None,
            },
            needs_account,
        }
    }

    fn budget(lamports: u64) -> FeeBudget {
        let budget = FeeBudget::of(Some(Pubkey::new_unique()));
        budget.refresh(Funds {
            balance: lamports,
            minimum: 0,
            in_flight: 0,
            least_fee: 0,
        });
        budget
    }

    proptest! {
        #[test]
        fn every_reading_is_funded_or_left_out_and_the_budget_is_not_overdrawn(
            readings in prop::collection::vec((0_u8..12, 1_u64..120), 0..40),
            new_wallets in prop::collection::hash_set(0_u8..12, 0..12),
            rents in 0_u64..14,
            spare in 0_u64..500_000,
            micro_lamports in 0_u64..1_000_000,
        ) {
            let payable: Vec<Payable> = (0..)
                .zip(&readings)
                .map(|(number, (wallet, amount))| {
                    payable(number, *wallet, *amount, new_wallets.contains(wallet))
                })
                .collect();
            let all: Vec<Uuid> = payable.iter().map(|payable| payable.candidate.id).collect();
            let costs = TransactionCosts {
                base_fee: 5_000,
                account_rent: RENT,
                price: ComputeUnitPrice::from_micro_lamports(micro_lamports),
            };
            let lamports = rents * RENT + spare;
            let budget = budget(lamports);
            let plan = fit_to_budget(payable, &budget, &costs, |items| pack(items, &LIMITS, |_| true));

            let funded = plan.funded.iter().flat_map(|funded| &funded.readings);
            let oversized = plan.left_out.oversized.iter().map(|(reading, _)| reading.id);
            let mut found: Vec<Uuid> = funded.map(|reading| reading.id).chain(oversized).collect();
            found.extend(&plan.left_out.carried);
            found.extend(&plan.left_out.without_rent);
            found.extend(&plan.left_out.without_fee);
            found.sort_unstable();
            prop_assert_eq!(found, all);

            let reserved: u64 = plan.funded.iter().map(|funded| costs.ceiling(&funded.packed)).sum();
            prop_assert!(reserved <= lamports);
            prop_assert_eq!(budget.spendable(), lamports - reserved);
            for funded in &plan.funded {
                prop_assert_eq!(funded.readings.len(), funded.packed.readings.len());
            }
        }
    }

    #[test]
    fn an_account_is_bought_only_if_later_batches_can_pay_their_fees() {
        let costs = TransactionCosts {
            base_fee: 5_000,
            account_rent: RENT,
            price: ComputeUnitPrice::ZERO,
        };
        let fit = |payable, budget: &FeeBudget| {
            fit_to_budget(payable, budget, &costs, |items| {
                pack(items, &LIMITS, |_| true)
            })
        };
        let new_wallet = || vec![payable(1, 1, 10, true)];
        // The rent of one account and a few fees.
        let little = budget(RENT + 10 * 5_000);
        let first = fit(new_wallet(), &little);
        assert_eq!(
            (first.funded.len(), first.left_out.without_rent.len()),
            (0, 1)
        );
        let later: Vec<Plan> = (2..12_u8)
            .map(|wallet| {
                fit(
                    vec![payable(u128::from(wallet), wallet, 10, false)],
                    &little,
                )
            })
            .collect();
        assert!(later.iter().all(|plan| plan.funded.len() == 1));
        let enough = budget(RENT + 5_000 + costs.fees_kept());
        assert_eq!(fit(new_wallet(), &enough).funded.len(), 1);
    }

    #[test]
    fn the_budget_limits_account_creations_and_each_round_plans_fewer() {
        for (spendable, wanted, expected) in [
            (0, 5, 0),
            (RENT, 5, 0),
            (RENT + 10_000, 5, 1),
            (3 * RENT + 10_000, 5, 3),
            // The budget has changed since: still one fewer.
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
}
