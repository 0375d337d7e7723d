//! Tracks how much the fee payer can still spend.
//!
//! Invariant: within one process, what is reserved for batches under way, what recorded transactions may still cost, and the
//! fee payer's own rent minimum never add up to more than its balance. Kept by reserving before a transaction is signed.
//! Reservations of other processes are visible only once those processes have recorded their transactions; the worst outcome
//! is a transaction that cannot pay its fee, which the ledger proves dead without using an attempt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use solana_sdk::pubkey::Pubkey;

/// The fee payer's funds as read from chain and ledger, lamports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    /// Of the fee payer.
    pub balance: u64,
    /// Must stay: rent of an account without data. The runtime refuses a transaction that would leave less.
    pub minimum: u64,
    /// Fees and rent of recorded transactions that the balance does not show yet, of all processes.
    pub in_flight: u64,
    /// The cheapest transaction costs at most this.
    pub least_fee: u64,
}

impl Funds {
    /// The part of the balance that is neither needed for rent nor in flight.
    pub fn available(self) -> u64 {
        self.balance
            .saturating_sub(self.minimum)
            .saturating_sub(self.in_flight)
    }

    /// Nothing can be minted: the balance does not cover one more fee on top of what is in flight.
    pub fn is_empty(self) -> bool {
        self.available() < self.least_fee
    }
}

#[derive(Debug, Default)]
struct BudgetState {
    /// `None` while this process does not know which account pays.
    fee_payer: Option<Pubkey>,
    /// `None` before the first refresh for this fee payer.
    funds: Option<Funds>,
    /// For transactions that are not recorded yet.
    reserved: u64,
    /// Recorded since the funds were read: the funds do not include it.
    recorded: u64,
    /// Recorded before the refresh that is under way began: its result includes it.
    recorded_before_refresh: u64,
    /// The smallest amount that could not be reserved.
    shortfall: Option<u64>,
}

impl BudgetState {
    fn committed(&self) -> u64 {
        self.reserved + self.recorded + self.recorded_before_refresh
    }

    fn spendable(&self) -> u64 {
        self.funds
            .map_or(0, Funds::available)
            .saturating_sub(self.committed())
    }
}

/// A handle; clones share one budget.
#[derive(Clone, Debug, Default)]
pub struct FeeBudget(Arc<Mutex<BudgetState>>);

/// A snapshot of the budget, lamports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeBudgetView {
    pub funds: Funds,
    /// In flight, or reserved for batches of this process.
    pub reserved: u64,
    /// Another transaction may cost at most this.
    pub spendable: u64,
    /// The smallest amount that a batch could not reserve and still waits for.
    pub shortfall: Option<u64>,
}

impl FeeBudgetView {
    /// Not one more fee can be reserved.
    pub fn is_empty(&self) -> bool {
        self.spendable < self.funds.least_fee
    }
}

impl FeeBudget {
    /// Of this fee payer; nothing can be spent before the first refresh.
    pub fn of(fee_payer: Option<Pubkey>) -> FeeBudget {
        let budget = FeeBudget::default();
        budget.state().fee_payer = fee_payer;
        budget
    }

    /// `None` while this process does not know which account pays.
    pub fn fee_payer(&self) -> Option<Pubkey> {
        self.state().fee_payer
    }

    /// Replaces the fee payer; the funds of the new one are unknown until the next refresh. Returns whether it changed.
    pub fn set_payer(&self, fee_payer: Pubkey) -> bool {
        let mut state = self.state();
        if state.fee_payer == Some(fee_payer) {
            return false;
        }
        state.fee_payer = Some(fee_payer);
        state.funds = None;
        true
    }

    fn state(&self) -> MutexGuard<'_, BudgetState> {
        // Every change is a single assignment or addition: a panic leaves no half-made change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before the funds are read: what was recorded until now is included in what will be read.
    pub fn begin_refresh(&self) {
        let mut state = self.state();
        state.recorded_before_refresh += std::mem::take(&mut state.recorded);
    }

    /// Sets the funds that were read. Returns whether they cover the noted shortfall, which is then cleared.
    pub fn refresh(&self, funds: Funds) -> bool {
        let mut state = self.state();
        state.funds = Some(funds);
        state.recorded_before_refresh = 0;
        let covered = state
            .shortfall
            .is_some_and(|shortfall| state.spendable() >= shortfall);
        if covered {
            state.shortfall = None;
        }
        covered
    }

    /// `None` before the first refresh for this fee payer.
    pub fn view(&self) -> Option<FeeBudgetView> {
        let state = self.state();
        let funds = state.funds?;
        Some(FeeBudgetView {
            funds,
            reserved: funds.in_flight + state.committed(),
            spendable: state.spendable(),
            shortfall: state.shortfall,
        })
    }

    /// Lamports that another transaction may cost at most.
    pub fn spendable(&self) -> u64 {
        self.state().spendable()
    }

    /// Reserves the whole amount, or nothing and returns `None`.
    pub fn reserve(&self, lamports: u64) -> Option<Reservation> {
        self.reserve_leaving(lamports, 0)
    }

    /// The same, if at least `rest` stays spendable afterwards.
    pub fn reserve_leaving(&self, lamports: u64, rest: u64) -> Option<Reservation> {
        let mut state = self.state();
        if state.spendable() < lamports.saturating_add(rest) {
            return None;
        }
        state.reserved += lamports;
        Some(Reservation {
            budget: self.clone(),
            lamports,
        })
    }

    /// Notes that a batch waits until this amount can be reserved. The smallest noted amount counts.
    pub fn note_shortfall(&self, lamports: u64) {
        let mut state = self.state();
        state.shortfall = Some(
            state
                .shortfall
                .map_or(lamports, |shortfall| shortfall.min(lamports)),
        );
    }
}

/// An amount reserved for one transaction; dropping it releases the amount.
#[derive(Debug)]
pub struct Reservation {
    budget: FeeBudget,
    lamports: u64,
}

impl Reservation {
    /// Releases what the transaction turned out not to need. Never raises the amount.
    pub fn lower_to(&mut self, lamports: u64) {
        let rest = self.lamports.saturating_sub(lamports);
        self.lamports -= rest;
        let mut state = self.budget.state();
        state.reserved = state.reserved.saturating_sub(rest);
    }

    /// The transaction is recorded: its cost counts as committed until the ledger's sum includes it.
    pub fn recorded(mut self) {
        let lamports = std::mem::take(&mut self.lamports);
        let mut state = self.budget.state();
        state.reserved = state.reserved.saturating_sub(lamports);
        state.recorded += lamports;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.reserved = state.reserved.saturating_sub(self.lamports);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(balance: u64) -> FeeBudget {
        let budget = FeeBudget::default();
        budget.begin_refresh();
        budget.refresh(Funds {
            balance,
            minimum: 10,
            in_flight: 0,
            least_fee: 5,
        });
        budget
    }

    #[test]
    fn nothing_can_be_reserved_before_the_first_refresh_and_the_minimum_never() {
        assert!(FeeBudget::default().reserve(1).is_none());
        let budget = budget(100);
        assert!(budget.reserve(91).is_none());
        let all = budget.reserve(90).unwrap();
        assert_eq!(budget.spendable(), 0);
        drop(all);
        assert_eq!(budget.spendable(), 90);
        assert!(budget.reserve_leaving(80, 11).is_none());
        assert!(budget.reserve_leaving(80, 10).is_some());
    }

    #[test]
    fn a_recorded_cost_stays_committed_until_a_refresh_that_began_later_includes_it() {
        let budget = budget(100);
        budget.reserve(30).unwrap().recorded();
        budget.begin_refresh();
        // Recorded while the ledger is being read: the sum may not include it.
        budget.reserve(20).unwrap().recorded();
        budget.refresh(Funds {
            balance: 100,
            minimum: 10,
            in_flight: 30,
            least_fee: 5,
        });
        assert_eq!(budget.spendable(), 40);
        budget.begin_refresh();
        budget.refresh(Funds {
            balance: 70,
            minimum: 10,
            in_flight: 20,
            least_fee: 5,
        });
        assert_eq!(budget.spendable(), 40);
        assert_eq!(budget.view().unwrap().reserved, 20);
    }

    #[test]
    fn what_a_transaction_does_not_need_is_released_before_it_is_recorded() {
        let budget = budget(100);
        let mut reservation = budget.reserve(80).unwrap();
        reservation.lower_to(30);
        assert_eq!(budget.spendable(), 60);
        reservation.lower_to(50);
        assert_eq!(budget.spendable(), 60, "never more than was reserved");
        reservation.recorded();
        assert_eq!(budget.spendable(), 60);
    }

    #[test]
    fn a_failed_refresh_loses_nothing() {
        let budget = budget(100);
        budget.reserve(30).unwrap().recorded();
        budget.begin_refresh();
        // It failed; the next one begins.
        budget.begin_refresh();
        assert_eq!(budget.spendable(), 60);
    }

    #[test]
    fn a_shortfall_is_kept_until_the_funds_cover_it() {
        let budget = budget(20);
        budget.note_shortfall(50);
        budget.note_shortfall(80);
        let poor = Funds {
            balance: 59,
            minimum: 10,
            in_flight: 0,
            least_fee: 5,
        };
        assert!(!budget.refresh(poor));
        let rich = Funds {
            balance: 60,
            ..poor
        };
        assert!(budget.refresh(rich));
        assert!(!budget.refresh(rich), "reported once");
    }

    #[test]
    fn it_is_empty_when_not_one_more_fee_can_be_reserved() {
        let budget = budget(30);
        let is_empty = || budget.view().unwrap().is_empty();
        assert!(!is_empty());
        let reserved = budget.reserve(16).unwrap();
        assert!(is_empty());
        assert!(
            !budget.view().unwrap().funds.is_empty(),
            "reserved is not spent"
        );
        drop(reserved);
        assert!(!is_empty());
    }

    #[test]
    fn the_funds_of_another_fee_payer_are_unknown_before_a_refresh() {
        let (first, second) = (Pubkey::new_unique(), Pubkey::new_unique());
        let budget = budget(100);
        assert_eq!(budget.fee_payer(), None);
        assert!(budget.set_payer(first));
        assert_eq!((budget.view(), budget.spendable()), (None, 0));
        budget.refresh(Funds {
            balance: 100,
            ..Funds::default()
        });
        assert!(!budget.set_payer(first));
        assert_eq!(budget.spendable(), 100);
        assert!(budget.set_payer(second));
        assert_eq!((budget.view(), budget.fee_payer()), (None, Some(second)));
    }

    proptest! {
        /// Batches reserve, release, record; transactions land; funds are read at any time: the balance never falls below the
        /// minimum.
        #[test]
        fn the_minimum_is_never_spent(steps in prop::collection::vec((0_u8..5, 1_u64..40), 1..200)) {
            let mut balance = 300_u64;
            let budget = budget(balance);
            let mut reservations: Vec<Reservation> = Vec::new();
            let mut recorded: Vec<u64> = Vec::new();
            let mut read: Option<(u64, u64)> = None;
            for (step, lamports) in steps {
                if step == 2 && lamports % 2 == 0 && let Some(reservation) = reservations.last_mut() {
                    // The ceiling was reserved, and the transaction costs less.
                    let costs = reservation.lamports.min(lamports);
                    reservation.lower_to(costs);
                    prop_assert_eq!(reservation.lamports, costs);
                }
                match step {
                    0 => reservations.extend(budget.reserve(lamports)),
                    1 => drop(reservations.pop()),
                    2 => if let Some(reservation) = reservations.pop() {
                        recorded.push(reservation.lamports);
                        reservation.recorded();
                    },
                    3 => if let Some(cost) = recorded.pop() {
                        prop_assert!(balance >= cost + 10, "{balance} cannot pay {cost}");
                        balance -= cost;
                    },
                    _ => match read.take() {
                        None => {
                            budget.begin_refresh();
                            read = Some((balance, recorded.iter().sum()));
                        }
                        Some((balance, in_flight)) => {
                            budget.refresh(Funds { balance, minimum: 10, in_flight, least_fee: 5 });
                        }
                    },
                }
            }
        }
    }
}
