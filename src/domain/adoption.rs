//! Finds the readings that a transaction paid, from its sums per wallet and its Merkle root alone.
//!
//! Invariant: readings that are found are the right ones, because no other readings give that root. That none is found, or none
//! within the limits of the search, proves nothing.

use uuid::Uuid;

use super::merkle::{Hash32, root_of};
use super::tokens::BaseUnits;

/// The number of sets of one wallet's readings that are tried, the oldest readings first: the minter pays in that order.
const SETS_PER_WALLET_MAX: usize = 2_000;
/// The number of steps in the search for the sets of one wallet.
const STEPS_PER_WALLET_MAX: usize = 1_000_000;
/// The number of roots that are computed: a few seconds.
const ROOTS_MAX: usize = 500_000;

/// A reading that may have been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpaidReading {
    pub id: Uuid,
    pub base_units: BaseUnits,
    pub leaf_hash: Hash32,
}

/// The sum that a wallet received, and the readings that it may have paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidWallet {
    pub base_units: BaseUnits,
    /// The oldest first.
    pub readings: Vec<UnpaidReading>,
}

/// The result of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Exactly these readings.
    Readings(Vec<Uuid>),
    /// No set of them gives the sums and the root.
    None,
    /// None of the sets that were tried does; there are more.
    TooManySets,
}

/// Searches for readings, some of each wallet, that give each wallet's sum and this root.
pub fn adoption(wallets: &[PaidWallet], root: Hash32) -> Adoption {
    let mut sets_of_wallets = Vec::with_capacity(wallets.len());
    let mut all = true;
    for wallet in wallets {
        let mut sets = Sets::new(wallet);
        sets.collect(0, wallet.base_units.get());
        all &= sets.is_complete();
        if sets.found.is_empty() {
            return if sets.is_complete() {
                Adoption::None
            } else {
                Adoption::TooManySets
            };
        }
        sets_of_wallets.push(sets.found);
    }
    match combine(&sets_of_wallets, root) {
        Adoption::None if !all => Adoption::TooManySets,
        found => found,
    }
}

/// Iterates over the sets of one wallet's readings that give its sum.
struct Sets<'a> {
    readings: &'a [UnpaidReading],
    /// The sum of the readings from each index on.
    rest: Vec<u128>,
    chosen: Vec<UnpaidReading>,
    found: Vec<Vec<UnpaidReading>>,
    steps: usize,
}

impl Sets<'_> {
    fn new(wallet: &PaidWallet) -> Sets<'_> {
        let mut rest = vec![0_u128; wallet.readings.len() + 1];
        for (index, reading) in wallet.readings.iter().enumerate().rev() {
            rest[index] = rest[index + 1] + u128::from(reading.base_units.get());
        }
        Sets {
            readings: &wallet.readings,
            rest,
            chosen: Vec::new(),
            found: Vec::new(),
            steps: 0,
        }
    }

    fn is_complete(&self) -> bool {
        self.steps < STEPS_PER_WALLET_MAX && self.found.len() < SETS_PER_WALLET_MAX
    }

    /// Tries sets with the reading at `index` before those without it, so that the first sets are of the oldest readings. The
    /// recursion is as deep as a set is large, because the loop skips readings that are left out.
    fn collect(&mut self, index: usize, missing: u64) {
        if missing == 0 {
            self.found.push(self.chosen.clone());
            return;
        }
        for next in index..self.readings.len() {
            if !self.is_complete() || self.rest[next] < u128::from(missing) {
                return;
            }
            self.steps += 1;
            let reading = self.readings[next];
            if let Some(missing) = missing.checked_sub(reading.base_units.get()) {
                // A transaction pays a few dozen readings: a deeper set is not ours.
                if self.chosen.len() < READINGS_PER_WALLET_MAX {
                    self.chosen.push(reading);
                    self.collect(next + 1, missing);
                    self.chosen.pop();
                }
            }
        }
    }
}

/// The largest `BLOCKCHAIN_MAX_BATCH_SIZE`, which also bounds the depth of the search.
const READINGS_PER_WALLET_MAX: usize = 1_000;

/// Combines one set of each wallet, like the wheels of an odometer.
fn combine(sets_of_wallets: &[Vec<Vec<UnpaidReading>>], root: Hash32) -> Adoption {
    let mut wheels = vec![0; sets_of_wallets.len()];
    for _ in 0..ROOTS_MAX {
        let mut leaves: Vec<(Uuid, Hash32)> = sets_of_wallets
            .iter()
            .zip(&wheels)
            .flat_map(|(sets, at)| &sets[*at])
            .map(|reading| (reading.id, reading.leaf_hash))
            .collect();
        if root_of(&mut leaves) == root {
            return Adoption::Readings(leaves.into_iter().map(|(id, _)| id).collect());
        }
        let turned = wheels
            .iter_mut()
            .zip(sets_of_wallets)
            .rev()
            .find_map(|(wheel, sets)| {
                *wheel = (*wheel + 1) % sets.len();
                (*wheel > 0).then_some(())
            });
        if turned.is_none() {
            return Adoption::None;
        }
    }
    Adoption::TooManySets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(number: u128, base_units: u64) -> UnpaidReading {
        let mut leaf_hash = [0; 32];
        leaf_hash[..16].copy_from_slice(&number.to_be_bytes());
        UnpaidReading {
            id: Uuid::from_u128(number),
            base_units: BaseUnits::new(base_units),
            leaf_hash,
        }
    }

    fn root_of_these(readings: &[UnpaidReading]) -> Hash32 {
        let mut leaves: Vec<_> = readings
            .iter()
            .map(|reading| (reading.id, reading.leaf_hash))
            .collect();
        root_of(&mut leaves)
    }

    #[test]
    fn the_oldest_of_many_equal_readings_are_found_at_once() {
        let readings: Vec<_> = (0..5_000).map(|number| reading(number, 7)).collect();
        let root = root_of_these(&readings[..40]);
        let wallet = PaidWallet {
            base_units: BaseUnits::new(40 * 7),
            readings: readings.clone(),
        };
        let expected: Vec<_> = readings[..40].iter().map(|reading| reading.id).collect();
        assert_eq!(adoption(&[wallet], root), Adoption::Readings(expected));
    }

    #[test]
    fn a_search_that_ends_at_its_limit_does_not_report_none() {
        let readings: Vec<_> = (0..500).map(|number| reading(number, 7)).collect();
        let wallet = |base_units| PaidWallet {
            base_units: BaseUnits::new(base_units),
            readings: readings.clone(),
        };
        assert_eq!(adoption(&[wallet(40 * 7)], [9; 32]), Adoption::TooManySets);
        assert_eq!(adoption(&[wallet(7)], [9; 32]), Adoption::None);
        let more_than_there_is = wallet(500 * 7 + 1);
        assert_eq!(adoption(&[more_than_there_is], [9; 32]), Adoption::None);
        let without_readings = PaidWallet {
            base_units: BaseUnits::new(1),
            readings: Vec::new(),
        };
        assert_eq!(
            adoption(&[wallet(7), without_readings], [9; 32]),
            Adoption::None
        );
    }

    proptest! {
        #[test]
        fn the_paid_readings_are_found(
            wallets in prop::collection::vec(
                prop::collection::vec((1_u64..5, any::<bool>()), 1..7), 1..4
            )
        ) {
            let mut number = 0;
            let mut paid = Vec::new();
            let mut candidates = Vec::new();
            for readings in wallets {
                let mut wallet = PaidWallet { base_units: BaseUnits::new(0), readings: Vec::new() };
                let mut sum = 0;
                for (index, (base_units, is_paid)) in readings.into_iter().enumerate() {
                    number += 1;
                    let reading = reading(number, base_units);
                    wallet.readings.push(reading);
                    // Each wallet of a transaction receives something.
                    if is_paid || index == 0 {
                        sum += base_units;
                        paid.push(reading);
                    }
                }
                wallet.base_units = BaseUnits::new(sum);
                candidates.push(wallet);
            }
            let expected: Vec<Uuid> = paid.iter().map(|reading| reading.id).collect();
            prop_assert_eq!(adoption(&candidates, root_of_these(&paid)), Adoption::Readings(expected));
        }
    }
}
