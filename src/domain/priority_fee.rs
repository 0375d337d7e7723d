//! Prices a transaction above the base fee so that leaders include it sooner.
//!
//! Invariant: no price exceeds the operator's cap (`BLOCKCHAIN_PRIORITY_FEE_MAX`), and the computed fee is the one that the
//! chain charges: the requested compute units, used or not, times the price, rounded up to a lamport. Prices are in
//! micro-lamports per compute unit, fees in lamports.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Micro-lamports in a lamport.
const MICRO_LAMPORTS: u128 = 1_000_000;

/// The number of newest slots whose prices count: as many as a node keeps, about a minute.
const SLOTS_LOOKED_AT: usize = 150;

/// Price of one compute unit in micro-lamports, millionths of a lamport, as the chain's `SetComputeUnitPrice` takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeUnitPrice(u64);

impl ComputeUnitPrice {
    /// No priority fee; the transaction has no `SetComputeUnitPrice` instruction.
    pub const ZERO: ComputeUnitPrice = ComputeUnitPrice(0);
    /// The highest price that can be configured: 1,000 lamports per unit, 1.4 SOL for the largest transaction.
    pub const MAX: ComputeUnitPrice = ComputeUnitPrice(1_000_000_000);

    pub const fn from_micro_lamports(micro_lamports: u64) -> ComputeUnitPrice {
        ComputeUnitPrice(micro_lamports)
    }

    pub const fn micro_lamports(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The priority fee, in lamports, of a transaction that requests this many compute units. The chain charges it whether or not
    /// they are used.
    pub fn lamports_for(self, compute_units: u32) -> u64 {
        let micro_lamports = u128::from(self.0) * u128::from(compute_units);
        // Above 64 bits the runtime charges the largest number too.
        u64::try_from(micro_lamports.div_ceil(MICRO_LAMPORTS)).unwrap_or(u64::MAX)
    }
}

/// Determines the price of a transaction (`BLOCKCHAIN_PRIORITY_FEE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorityFeePolicy {
    None,
    /// A constant price.
    Fixed(ComputeUnitPrice),
    /// This percentile of the recent slots' prices for transactions that write to the same accounts.
    Percentile(Percentile),
}

/// 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(u8);

impl Percentile {
    /// Returns `None` outside 1 to 100.
    pub fn new(percent: u8) -> Option<Percentile> {
        (1..=100).contains(&percent).then_some(Percentile(percent))
    }

    /// By nearest rank: the smallest of these prices that this percentage of them does not exceed. `None` when there are none.
    fn of(self, prices: &mut [ComputeUnitPrice]) -> Option<ComputeUnitPrice> {
        prices.sort_unstable();
        let rank = (usize::from(self.0) * prices.len()).div_ceil(100);
        prices.get(rank.checked_sub(1)?).copied()
    }
}

/// The market's price, at most `cap`.
///
/// `paid` are slots and prices as `getRecentPrioritizationFees` reports them, in any order: the smallest price with which a
/// transaction was included in the slot. Of several prices for one slot the smallest counts. `None` without any: nothing is known then.
pub fn market_price(
    paid: &[(u64, ComputeUnitPrice)],
    percentile: Percentile,
    cap: ComputeUnitPrice,
) -> Option<ComputeUnitPrice> {
    let mut by_slot: BTreeMap<u64, ComputeUnitPrice> = BTreeMap::new();
    for (slot, price) in paid {
        let least = by_slot.entry(*slot).or_insert(*price);
        *least = (*least).min(*price);
    }
    let mut newest: Vec<ComputeUnitPrice> =
        by_slot.into_values().rev().take(SLOTS_LOOKED_AT).collect();
    Some(percentile.of(&mut newest)?.min(cap))
}

/// Parses the setting: `none`, `fixed:5000`, `percentile:75`.
impl FromStr for PriorityFeePolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<PriorityFeePolicy, ()> {
        match text.split_once(':') {
            None if text == "none" => Some(PriorityFeePolicy::None),
            Some(("fixed", price)) => whole(price)
                .filter(|price| (1..=ComputeUnitPrice::MAX.0).contains(price))
                .map(|price| PriorityFeePolicy::Fixed(ComputeUnitPrice(price))),
            Some(("percentile", percent)) => whole(percent)
                .and_then(|percent| u8::try_from(percent).ok())
                .and_then(Percentile::new)
                .map(PriorityFeePolicy::Percentile),
            _ => None,
        }
        .ok_or(())
    }
}

impl fmt::Display for PriorityFeePolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PriorityFeePolicy::None => write!(formatter, "none"),
            PriorityFeePolicy::Fixed(price) => write!(formatter, "fixed:{}", price.0),
            PriorityFeePolicy::Percentile(percentile) => {
                write!(formatter, "percentile:{}", percentile.0)
            }
        }
    }
}

/// Digits only: no sign, no space.
fn whole(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(micro_lamports: u64) -> ComputeUnitPrice {
        ComputeUnitPrice(micro_lamports)
    }

    #[test]
    fn the_computed_fee_is_what_the_chain_charges() {
        for (micro_lamports, compute_units, lamports) in [
            (0, 1_400_000, 0),
            (1, 0, 0),
            (1, 1, 1),
            (1, 1_000_000, 1),
            (1, 1_000_001, 2),
            (999_999, 1, 1),
            (1_000_000, 1, 1),
            (1_000_001, 1, 2),
            (200, 100_000, 20),
            (u64::MAX, u32::MAX, u64::MAX),
        ] {
            assert_eq!(price(micro_lamports).lamports_for(compute_units), lamports);
        }
    }

    #[test]
    fn a_policy_parses_exactly_as_it_is_written() {
        for text in [
            "none",
            "fixed:1",
            "fixed:1000000000",
            "percentile:1",
            "percentile:100",
        ] {
            assert_eq!(text.parse::<PriorityFeePolicy>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "None",
            "none:",
            "none:1",
            "fixed",
            "fixed:",
            "fixed:0",
            "fixed:1000000001",
            "fixed:+5",
            "fixed:-5",
            "fixed: 5",
            "fixed:1.5",
            "fixed:1e3",
            "fixed:99999999999999999999",
            "percentile:0",
            "percentile:101",
            "percentile:356",
            "percentile:75.5",
            "percentile:",
            "75",
            "fixed:1:2",
        ] {
            assert_eq!(text.parse::<PriorityFeePolicy>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_newest_slots_count_each_with_its_smallest_price() {
        let p50 = Percentile::new(50).unwrap();
        let old = (1..=50).map(|slot| (slot, price(9_000)));
        let recent = (51..=200).map(|slot| (slot, price(slot)));
        let busy = (51..=200).map(|slot| (slot, price(5_000)));
        let paid: Vec<_> = old.chain(recent).chain(busy).collect();
        let market = |paid: &[_], cap| market_price(paid, p50, cap);
        assert_eq!(market(&paid, ComputeUnitPrice::MAX), Some(price(125)));
        assert_eq!(market(&paid, price(100)), Some(price(100)), "capped");
        assert_eq!(market(&[], price(100)), None, "not known");
    }

    proptest! {
        #[test]
        fn the_fee_is_the_smallest_whole_number_of_lamports_that_covers_the_price(
            micro_lamports in 0..=ComputeUnitPrice::MAX.0, compute_units in 0_u32..=1_400_000
        ) {
            let lamports = u128::from(price(micro_lamports).lamports_for(compute_units));
            let micro = u128::from(micro_lamports) * u128::from(compute_units);
            prop_assert!(lamports * MICRO_LAMPORTS >= micro);
            prop_assert!(lamports == 0 || (lamports - 1) * MICRO_LAMPORTS < micro);
        }

        /// Fees reserved for the parts cover the whole.
        #[test]
        fn parts_cost_no_less_than_the_whole(
            micro_lamports in 0..=ComputeUnitPrice::MAX.0, left in 0_u32..=700_000, right in 0_u32..=700_000
        ) {
            let price = price(micro_lamports);
            prop_assert!(price.lamports_for(left + right) <= price.lamports_for(left) + price.lamports_for(right));
            prop_assert!(price.lamports_for(left) <= price.lamports_for(left + right));
        }

        #[test]
        fn a_percentile_is_one_of_the_prices_that_enough_do_not_exceed(
            paid in prop::collection::vec(0_u64..1_000, 1..150), percent in 1_u8..=100
        ) {
            let slots: Vec<_> = (1..).zip(paid.iter().copied().map(price)).collect();
            let found = market_price(&slots, Percentile(percent), ComputeUnitPrice::MAX).unwrap();
            prop_assert!(paid.contains(&found.0));
            let up_to = paid.iter().filter(|paid| **paid <= found.0).count();
            let below = paid.iter().filter(|paid| **paid < found.0).count();
            prop_assert!(up_to * 100 >= usize::from(percent) * paid.len());
            prop_assert!(below * 100 < usize::from(percent) * paid.len(), "a lower one would do");
        }

        #[test]
        fn no_price_is_above_the_cap_and_a_higher_percentile_is_never_cheaper(
            paid in prop::collection::vec((0_u64..300, any::<u64>()), 1..400), percent in 1_u8..100, cap in 1_u64..
        ) {
            let slots: Vec<_> = paid.iter().map(|(slot, paid)| (*slot, price(*paid))).collect();
            let lower = market_price(&slots, Percentile(percent), price(cap)).unwrap();
            let higher = market_price(&slots, Percentile(percent + 1), price(cap)).unwrap();
            prop_assert!(lower <= higher && higher.0 <= cap);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<PriorityFeePolicy>();
        }
    }
}
