//! What of a batch the fee payer can pay.

use std::collections::HashSet;

use uuid::Uuid;

use super::candidate::Candidate;
use crate::chain::{Purse, Reservation, TOKEN_ACCOUNT_RENT_LAMPORTS};
use crate::domain::{Packed, Wallet};

/// Why readings wait that could be paid if the fee payer could pay their transaction's fee.
pub(super) const NO_FEE: &str =
    "the fee payer's balance covers no further fee: it waits for a top-up";

/// The purse, and the price of a transaction.
pub(super) struct Means<'a> {
    pub purse: &'a Purse,
    /// Of one mint transaction, lamports.
    pub fee: u64,
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
        TOKEN_ACCOUNT_RENT_LAMPORTS + self.fee
    }

    fn cost(&self, packed: &Packed) -> u64 {
        self.fee + packed.account_creations() as u64 * TOKEN_ACCOUNT_RENT_LAMPORTS
    }

    pub fn reserve(&self, packed: &Packed) -> Option<Reservation> {
        self.purse.reserve(self.cost(packed))
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

    /// Of the payable, those whose wallets' accounts cannot be created beside the fees of so many transactions: never none
    /// while some are to be created. `payable` is in the order in which wallets are to be served.
    pub fn cannot_create(&self, payable: &[(Candidate, bool)], transactions: usize) -> Vec<Uuid> {
        let mut new_wallets: Vec<Wallet> = Vec::new();
        let mut seen = HashSet::new();
        for (candidate, needs_account) in payable {
            if *needs_account && seen.insert(candidate.wallet) {
                new_wallets.push(candidate.wallet);
            }
        }
        let affordable = affordable_creations(
            self.purse.spendable(),
            self.fee,
            transactions,
            new_wallets.len(),
        );
        let refused: HashSet<Wallet> = new_wallets.drain(affordable..).collect();
        payable
            .iter()
            .filter(|(candidate, _)| refused.contains(&candidate.wallet))
            .map(|(candidate, _)| candidate.id)
            .collect()
    }
}

/// How many of `wanted` accounts to create: fewer than wanted, since all together could not be paid.
fn affordable_creations(spendable: u64, fee: u64, transactions: usize, wanted: usize) -> usize {
    let fees = fee.saturating_mul(transactions as u64);
    let affordable = spendable.saturating_sub(fees) / TOKEN_ACCOUNT_RENT_LAMPORTS;
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
            // The purse has changed since: still one fewer.
            (u64::MAX, 5, 4),
            (u64::MAX, 1, 0),
            (u64::MAX, 0, 0),
        ] {
            assert_eq!(affordable_creations(spendable, 5_000, 2, wanted), expected);
        }
    }
}
