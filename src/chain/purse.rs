//! What the fee payer can still spend.
//!
//! Invariant: within one process, what is promised to batches under way, what recorded transactions may still take, and the
//! fee payer's own rent minimum never add up to more than its balance. Kept by reserving before a transaction is signed. What
//! other processes promise is seen only once they have recorded it; the worst that follows is a transaction that cannot pay
//! its fee, which the ledger proves dead without using an attempt.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use solana_sdk::pubkey::Pubkey;

/// Rent of a token account, lamports: paid once per wallet, by whoever creates it.
pub const TOKEN_ACCOUNT_RENT_LAMPORTS: u64 = 2_039_280;

/// What was read from chain and ledger, lamports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    /// Of the fee payer.
    pub balance: u64,
    /// Must stay: rent of an account without data. The runtime refuses a transaction that would leave less.
    pub minimum: u64,
    /// Fees and rent of recorded transactions that the balance does not show yet, of all processes.
    pub in_flight: u64,
    /// What the cheapest transaction costs at most.
    pub least_fee: u64,
}

impl Funds {
    /// What the balance can still pay beside what is in flight.
    pub fn available(self) -> u64 {
        self.balance
            .saturating_sub(self.minimum)
            .saturating_sub(self.in_flight)
    }

    /// Nothing can be minted: not one more fee can be paid beside what is in flight.
    pub fn is_empty(self) -> bool {
        self.available() < self.least_fee
    }
}

#[derive(Debug, Default)]
struct State {
    /// Whose it is, if this process knows.
    fee_payer: Option<Pubkey>,
    /// `None` before the first look at this fee payer.
    funds: Option<Funds>,
    /// Reserved for transactions that are not recorded yet.
    held: u64,
    /// Recorded since the funds were read: they do not show it.
    recorded: u64,
    /// Recorded before the reading of funds that is under way: its result shows it.
    recorded_before: u64,
    /// The least that somebody was refused.
    wanted: Option<u64>,
}

impl State {
    fn spendable(&self) -> u64 {
        let promised = self.held + self.recorded + self.recorded_before;
        self.funds
            .map_or(0, Funds::available)
            .saturating_sub(promised)
    }
}

/// A handle; clones are the same purse.
#[derive(Clone, Debug, Default)]
pub struct Purse(Arc<Mutex<State>>);

/// The purse as it is shown, lamports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseView {
    pub funds: Funds,
    /// What is in flight, and what is promised to batches of this process.
    pub reserved: u64,
    /// What another transaction may cost.
    pub spendable: u64,
    /// Somebody is refused for want of so much.
    pub wanted: Option<u64>,
}

impl PurseView {
    /// Not one more fee can be promised.
    pub fn is_empty(&self) -> bool {
        self.spendable < self.funds.least_fee
    }
}

impl Purse {
    /// Of this fee payer; nothing can be spent of it until it was looked at.
    pub fn of(fee_payer: Option<Pubkey>) -> Purse {
        let purse = Purse::default();
        purse.state().fee_payer = fee_payer;
        purse
    }

    /// Whose it is; `None` while this process does not know who pays.
    pub fn fee_payer(&self) -> Option<Pubkey> {
        self.state().fee_payer
    }

    /// Somebody else pays from now on, and what that one has is not known yet. True when it is somebody else.
    pub fn hand_over(&self, fee_payer: Pubkey) -> bool {
        let mut state = self.state();
        if state.fee_payer == Some(fee_payer) {
            return false;
        }
        state.fee_payer = Some(fee_payer);
        state.funds = None;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment or addition: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before the funds are read: what was recorded until now is in what will be read.
    pub fn begin_reading(&self) {
        let mut state = self.state();
        state.recorded_before += std::mem::take(&mut state.recorded);
    }

    /// What was read. True when somebody who was refused can be paid now.
    pub fn take_in(&self, funds: Funds) -> bool {
        let mut state = self.state();
        state.funds = Some(funds);
        state.recorded_before = 0;
        let relieved = state
            .wanted
            .is_some_and(|wanted| state.spendable() >= wanted);
        if relieved {
            state.wanted = None;
        }
        relieved
    }

    /// `None` before the first look at this fee payer.
    pub fn view(&self) -> Option<PurseView> {
        let state = self.state();
        let funds = state.funds?;
        Some(PurseView {
            funds,
            reserved: funds.in_flight + state.held + state.recorded + state.recorded_before,
            spendable: state.spendable(),
            wanted: state.wanted,
        })
    }

    /// What another transaction may cost, lamports.
    pub fn spendable(&self) -> u64 {
        self.state().spendable()
    }

    /// Sets so much aside, or nothing: then it is remembered that somebody wants it.
    pub fn reserve(&self, lamports: u64) -> Option<Reservation> {
        let mut state = self.state();
        if state.spendable() < lamports {
            return None;
        }
        state.held += lamports;
        Some(Reservation {
            purse: self.clone(),
            lamports,
        })
    }

    /// Somebody was refused and waits until so much can be spent.
    pub fn want(&self, lamports: u64) {
        let mut state = self.state();
        state.wanted = Some(state.wanted.map_or(lamports, |wanted| wanted.min(lamports)));
    }
}

/// Set aside for a transaction; dropped, it goes back.
#[derive(Debug)]
pub struct Reservation {
    purse: Purse,
    lamports: u64,
}

impl Reservation {
    /// What it will cost is known by now: the rest goes back. Never more than was set aside.
    pub fn lower_to(&mut self, lamports: u64) {
        let rest = self.lamports.saturating_sub(lamports);
        self.lamports -= rest;
        let mut state = self.purse.state();
        state.held = state.held.saturating_sub(rest);
    }

    /// The transaction is recorded: its cost stays set aside until the ledger's sum shows it.
    pub fn recorded(mut self) {
        let lamports = std::mem::take(&mut self.lamports);
        let mut state = self.purse.state();
        state.held = state.held.saturating_sub(lamports);
        state.recorded += lamports;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.purse.state();
        state.held = state.held.saturating_sub(self.lamports);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purse(balance: u64) -> Purse {
        let purse = Purse::default();
        purse.begin_reading();
        purse.take_in(Funds {
            balance,
            minimum: 10,
            in_flight: 0,
            least_fee: 5,
        });
        purse
    }

    #[test]
    fn nothing_is_promised_before_the_first_look_and_never_the_minimum() {
        assert!(Purse::default().reserve(1).is_none());
        let purse = purse(100);
        assert!(purse.reserve(91).is_none());
        let all = purse.reserve(90).unwrap();
        assert_eq!(purse.spendable(), 0);
        drop(all);
        assert_eq!(purse.spendable(), 90);
    }

    #[test]
    fn what_was_recorded_stays_set_aside_until_a_reading_that_began_later_shows_it() {
        let purse = purse(100);
        purse.reserve(30).unwrap().recorded();
        purse.begin_reading();
        // Recorded while the ledger is being read: this sum may not hold it.
        purse.reserve(20).unwrap().recorded();
        purse.take_in(Funds {
            balance: 100,
            minimum: 10,
            in_flight: 30,
            least_fee: 5,
        });
        assert_eq!(purse.spendable(), 40);
        purse.begin_reading();
        purse.take_in(Funds {
            balance: 70,
            minimum: 10,
            in_flight: 20,
            least_fee: 5,
        });
        assert_eq!(purse.spendable(), 40);
        assert_eq!(purse.view().unwrap().reserved, 20);
    }

    #[test]
    fn what_a_transaction_does_not_need_goes_back_before_it_is_recorded() {
        let purse = purse(100);
        let mut reservation = purse.reserve(80).unwrap();
        reservation.lower_to(30);
        assert_eq!(purse.spendable(), 60);
        reservation.lower_to(50);
        assert_eq!(purse.spendable(), 60, "never more than was set aside");
        reservation.recorded();
        assert_eq!(purse.spendable(), 60);
    }

    #[test]
    fn a_reading_that_fails_forgets_nothing() {
        let purse = purse(100);
        purse.reserve(30).unwrap().recorded();
        purse.begin_reading();
        // It failed; the next one begins.
        purse.begin_reading();
        assert_eq!(purse.spendable(), 60);
    }

    #[test]
    fn whoever_was_refused_is_remembered_until_it_can_be_paid() {
        let purse = purse(20);
        purse.want(50);
        purse.want(80);
        let poor = Funds {
            balance: 59,
            minimum: 10,
            in_flight: 0,
            least_fee: 5,
        };
        assert!(!purse.take_in(poor));
        let rich = Funds {
            balance: 60,
            ..poor
        };
        assert!(purse.take_in(rich));
        assert!(!purse.take_in(rich), "told once");
    }

    #[test]
    fn it_is_empty_when_not_one_more_fee_can_be_promised() {
        let purse = purse(30);
        let is_empty = || purse.view().unwrap().is_empty();
        assert!(!is_empty());
        let promised = purse.reserve(16).unwrap();
        assert!(is_empty());
        assert!(
            !purse.view().unwrap().funds.is_empty(),
            "promised is not spent"
        );
        drop(promised);
        assert!(!is_empty());
    }

    #[test]
    fn what_another_fee_payer_has_is_not_known_before_it_was_looked_at() {
        let (first, second) = (Pubkey::new_unique(), Pubkey::new_unique());
        let purse = purse(100);
        assert_eq!(purse.fee_payer(), None);
        assert!(purse.hand_over(first));
        assert_eq!((purse.view(), purse.spendable()), (None, 0));
        purse.take_in(Funds {
            balance: 100,
            ..Funds::default()
        });
        assert!(!purse.hand_over(first));
        assert_eq!(purse.spendable(), 100);
        assert!(purse.hand_over(second));
        assert_eq!((purse.view(), purse.fee_payer()), (None, Some(second)));
    }

    proptest! {
        /// Batches reserve, give up, record; transactions land; funds are read at any time: the balance never falls below the
        /// minimum.
        #[test]
        fn the_minimum_is_never_spent(steps in prop::collection::vec((0_u8..5, 1_u64..40), 1..200)) {
            let mut balance = 300_u64;
            let purse = purse(balance);
            let mut held: Vec<Reservation> = Vec::new();
            let mut recorded: Vec<u64> = Vec::new();
            let mut seen: Option<(u64, u64)> = None;
            for (step, lamports) in steps {
                if step == 2 && lamports % 2 == 0 && let Some(reservation) = held.last_mut() {
                    // The ceiling was reserved, and it costs less.
                    let costs = reservation.lamports.min(lamports);
                    reservation.lower_to(costs);
                    prop_assert_eq!(reservation.lamports, costs);
                }
                match step {
                    0 => held.extend(purse.reserve(lamports)),
                    1 => drop(held.pop()),
                    2 => if let Some(reservation) = held.pop() {
                        recorded.push(reservation.lamports);
                        reservation.recorded();
                    },
                    3 => if let Some(cost) = recorded.pop() {
                        prop_assert!(balance >= cost + 10, "{balance} cannot pay {cost}");
                        balance -= cost;
                    },
                    _ => match seen.take() {
                        None => {
                            purse.begin_reading();
                            seen = Some((balance, recorded.iter().sum()));
                        }
                        Some((balance, in_flight)) => {
                            purse.take_in(Funds { balance, minimum: 10, in_flight, least_fee: 5 });
                        }
                    },
                }
            }
        }
    }
}
