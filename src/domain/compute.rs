//! Plans the compute units of a mint transaction: a ceiling while it is packed, and the requested limit after its simulation.
//!
//! Invariant: the requested limit covers everything that the transaction may consume on chain, unless the cluster itself changes
//! its costs, and never exceeds the planned ceiling. A lower limit is better: leaders order transactions by the fee per requested
//! unit, and a priority fee is charged for each requested unit.
//!
//! The costs below were measured on the programs of mainnet, and the search costs are those of the runtime; the unit is the
//! compute unit (CU).

/// The runtime's limit for one transaction.
pub const COMPUTE_UNITS_MAX: u32 = 1_400_000;

/// One `MintTo`: 119 on clusters with p-token, about 4,500 with the token program before it.
pub(super) const MINT_TO_COMPUTE_UNITS: u32 = 6_000;
/// Less than any token program consumes for one.
const MINT_TO_COMPUTE_UNITS_LEAST: u64 = 100;
/// Creating an account without the search for its address: 14,000 to 17,000 measured with p-token, about 7,000 more before it.
const CREATE_COMPUTE_UNITS: u32 = 30_000;
/// One step of that search, which the program repeats on chain (`create_program_address_units`).
const ADDRESS_SEARCH_COMPUTE_UNITS: u32 = 1_500;
/// Steps of the search that are planned for a wallet whose address was not computed yet. Each further step is half as likely, so
/// it is infeasible to generate a wallet that takes 46 of them.
const ADDRESS_SEARCH_STEPS_PLANNED: u32 = 46;
/// Creating any wallet's account.
pub const CREATE_COMPUTE_UNITS_MAX: u32 =
    CREATE_COMPUTE_UNITS + ADDRESS_SEARCH_STEPS_PLANNED * ADDRESS_SEARCH_COMPUTE_UNITS;
/// The memo and the compute budget instructions: under 1,000 measured; the previous memo program consumed more per byte.
pub(super) const FIXED_COMPUTE_UNITS: u32 = 25_000;

/// A transaction with one payment, to an account that exists.
pub const PAYMENT_COMPUTE_UNITS_MAX: u32 = FIXED_COMPUTE_UNITS + MINT_TO_COMPUTE_UNITS;

/// The margin above the simulated consumption: a fifth. On existing accounts the programs consume the same each time, so the
/// margin covers a cluster that changes its costs between simulation and landing. A larger change fails one transaction; its
/// readings are packed alone then, and that transaction requests the ceiling.
const MARGIN_DIVISOR: u64 = 5;
/// The smallest margin: a fifth of one or two payments is not worth saving.
const MARGIN_LEAST: u64 = 1_000;

/// The ceiling of one transaction, computed for its own wallets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputePlan {
    payments: u32,
    ceiling: u32,
    /// The account creations' part of the ceiling.
    creations: u32,
}

impl ComputePlan {
    pub(super) fn new() -> ComputePlan {
        ComputePlan {
            payments: 0,
            ceiling: FIXED_COMPUTE_UNITS,
            creations: 0,
        }
    }

    pub(super) fn add_payment(&mut self) {
        self.payments += 1;
        self.ceiling = self.ceiling.saturating_add(MINT_TO_COMPUTE_UNITS);
    }

    /// Adds the creation of an account whose address is found in the `search_steps`th step.
    pub(super) fn add_creation(&mut self, search_steps: u32) {
        let creation = CREATE_COMPUTE_UNITS + search_steps * ADDRESS_SEARCH_COMPUTE_UNITS;
        self.creations = self.creations.saturating_add(creation);
        self.ceiling = self.ceiling.saturating_add(creation);
    }

    /// The limit before a simulation, and without one.
    pub fn ceiling(self) -> u32 {
        self.ceiling.min(COMPUTE_UNITS_MAX)
    }

    /// The limit after a simulation that consumed `consumed`: that amount, a margin, and the full cost of each account creation.
    /// The simulation may have found an account (created by another of our transactions, only `confirmed`) that no longer exists
    /// when this one lands, and anyone may send lamports to the address beforehand, which makes the creation more expensive.
    /// The ceiling when the node reports no consumption, or less than is possible.
    pub fn limit_after(self, consumed: Option<u64>) -> u32 {
        let least = u64::from(self.payments) * MINT_TO_COMPUTE_UNITS_LEAST;
        let Some(consumed) = consumed.filter(|consumed| *consumed >= least.max(1)) else {
            return self.ceiling();
        };
        let margin = (consumed / MARGIN_DIVISOR).max(MARGIN_LEAST);
        let wanted = consumed
            .saturating_add(margin)
            .saturating_add(u64::from(self.creations));
        u32::try_from(wanted)
            .unwrap_or(u32::MAX)
            .min(self.ceiling())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(payments: u32, creations: &[u32]) -> ComputePlan {
        let mut plan = ComputePlan::new();
        (0..payments).for_each(|_| plan.add_payment());
        creations.iter().for_each(|steps| plan.add_creation(*steps));
        plan
    }

    #[test]
    fn the_limit_is_the_simulated_consumption_and_a_fifth() {
        let nineteen = plan(19, &[]);
        assert_eq!(nineteen.ceiling(), 25_000 + 19 * 6_000);
        assert_eq!(nineteen.limit_after(Some(2_667)), 3_667);
        assert_eq!(nineteen.limit_after(Some(10_000)), 12_000);
        // As with the previous token program.
        assert_eq!(nineteen.limit_after(Some(100_000)), 120_000);
        assert_eq!(nineteen.limit_after(Some(130_000)), nineteen.ceiling());
        assert_eq!(nineteen.limit_after(Some(u64::MAX)), nineteen.ceiling());
    }

    #[test]
    fn without_a_plausible_consumption_the_limit_is_the_ceiling() {
        let nineteen = plan(19, &[]);
        for consumed in [None, Some(0), Some(19 * 100 - 1)] {
            assert_eq!(
                nineteen.limit_after(consumed),
                nineteen.ceiling(),
                "{consumed:?}"
            );
        }
    }

    proptest! {
        /// Whatever part of the creations the simulation executed, their full cost on chain is covered.
        #[test]
        fn the_limit_covers_what_may_cost_more_on_chain(
            payments in 1_u32..20,
            steps in prop::collection::vec(1_u32..20, 0..7),
            mint_to in 119_u32..=4_500,
            fixed in 300_u32..10_000,
            seen_percent in 0_u64..=100,
        ) {
            let plan = plan(payments, &steps);
            let rest = u64::from(fixed + payments * mint_to);
            let creations: u64 = steps
                .iter()
                .map(|steps| u64::from(CREATE_COMPUTE_UNITS + steps * ADDRESS_SEARCH_COMPUTE_UNITS))
                .sum();
            let limit = plan.limit_after(Some(rest + creations * seen_percent / 100));
            prop_assert!(u64::from(limit) >= rest + creations, "{limit}");
            prop_assert!(limit <= plan.ceiling());
            prop_assert!(plan.ceiling() <= COMPUTE_UNITS_MAX);
        }
    }
}
