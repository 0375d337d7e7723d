//! The sums of both sides, and the supply against them: pure.

use super::context::Supply;
use super::difference::Difference;
use super::total::Total;

/// Sums that our authority minted up to the supply's slot.
#[derive(Debug)]
pub(super) struct Minted {
    slot: u64,
    before: Total,
    in_slot: Total,
}

impl Minted {
    pub fn until(supply: Supply) -> Minted {
        Minted {
            slot: supply.slot,
            before: Total::ZERO,
            in_slot: Total::ZERO,
        }
    }

    pub fn add(&mut self, slot: u64, base_units: Total) {
        match slot.cmp(&self.slot) {
            std::cmp::Ordering::Less => self.before += base_units,
            std::cmp::Ordering::Equal => self.in_slot += base_units,
            std::cmp::Ordering::Greater => {}
        }
    }

    fn most(&self) -> Total {
        self.before + self.in_slot
    }

    /// Fewer tokens than were minted: holders burned the rest. More: another authority minted them.
    pub fn compare(&self, supply: Supply) -> Option<Difference> {
        (Total::from(supply.base_units) > self.most()).then(|| Difference::SupplyTooLarge {
            token_supply: supply.base_units,
            minted: self.most(),
        })
    }

    /// A lower bound: mints of a block that was still open may not be in the supply yet.
    pub fn burned(&self, supply: Supply) -> Total {
        let least = if supply.slot_is_open {
            self.before
        } else {
            self.most()
        };
        least.less(supply.base_units.into())
    }
}

/// Compares what the ledger's readings and booked foreign mints are worth with what was paid on chain. Mints that the
/// ledger lacks are separate differences, which name this consequence.
pub(super) fn compare_sums(
    ledger: Total,
    foreign: Total,
    unknown: Total,
    chain: Total,
) -> Option<Difference> {
    (ledger + foreign + unknown != chain).then_some(Difference::SumsDiffer {
        base_units_ledger: ledger,
        base_units_foreign: foreign,
        base_units_chain: chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BaseUnits;

    fn minted_until(supply: Supply) -> Minted {
        let mut minted = Minted::until(supply);
        // Slot 10 is the supply's; later slots are not in it.
        for (slot, base_units) in [(8, 100), (10, 20), (11, 3)] {
            minted.add(slot, Total::new(base_units));
        }
        minted
    }

    #[test]
    fn fewer_tokens_are_burned_and_more_are_a_difference() {
        let cases = [
            // supply, open, burned, is a difference
            (120, false, 0, false),
            (110, false, 10, false),
            (121, false, 0, true),
            // The 20 of the open slot may be in the supply or not.
            (120, true, 0, false),
            (100, true, 0, false),
            (110, true, 0, false),
            (90, true, 10, false),
            (121, true, 0, true),
        ];
        for (base_units, slot_is_open, burned, differs) in cases {
            let supply = Supply {
                base_units: BaseUnits::new(base_units),
                slot: 10,
                slot_is_open,
            };
            let minted = minted_until(supply);
            assert_eq!(minted.burned(supply), Total::new(burned), "{supply:?}");
            assert_eq!(minted.compare(supply).is_some(), differs, "{supply:?}");
        }
    }

    #[test]
    fn foreign_and_unknown_mints_count_towards_the_sum() {
        let totals = |ledger, foreign, unknown, chain| {
            let [ledger, foreign, unknown, chain] =
                [ledger, foreign, unknown, chain].map(Total::new);
            compare_sums(ledger, foreign, unknown, chain)
        };
        assert_eq!(totals(10, 0, 0, 10), None);
        assert_eq!(totals(10, 5, 0, 15), None);
        assert_eq!(totals(10, 5, 2, 17), None);
        assert!(totals(10, 0, 0, 15).is_some());
        assert!(totals(10, 0, 5, 16).is_some());
        assert!(totals(10, 0, 0, 9).is_some());
    }
}
