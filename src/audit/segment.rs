//! A checkpoint: sums and a hash over mint transactions of which ledger and chain agreed. Pure.
//!
//! Invariant: the hash follows from number, signature and root of each transaction in order, and from the hash before. A row that
//! was changed, added or removed since changes it, and the sums show how.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::ledger_transactions::LedgerTransaction;
use super::total::Total;
use crate::domain::Hash32;

/// Transactions in one checkpoint: a random one of them is verified in about a second of the database.
pub(super) const TRANSACTIONS: usize = 10_000;

/// A transaction that is final on chain, finalized in the ledger, and without a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Covered {
    pub signature: [u8; 64],
    pub merkle_root: Vec<u8>,
    pub readings: u64,
    pub base_units: Total,
}

impl Covered {
    pub fn of(booked: &LedgerTransaction) -> Covered {
        Covered {
            signature: booked.signature.bytes(),
            merkle_root: booked.merkle_root.clone(),
            readings: u64::try_from(booked.readings.len()).unwrap_or(u64::MAX),
            base_units: booked.base_units.into(),
        }
    }
}

/// Sums and hash of some transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digested {
    pub transactions: u64,
    pub readings: u64,
    pub base_units: Total,
    pub chain_hash: Hash32,
}

/// In the order of the numbers.
pub(super) fn digest<'a>(
    previous: &Hash32,
    covered: impl IntoIterator<Item = (&'a i64, &'a Covered)>,
) -> Digested {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    let mut digested = Digested {
        transactions: 0,
        readings: 0,
        base_units: Total::ZERO,
        chain_hash: [0; 32],
    };
    for (number, one) in covered {
        hasher.update(number.to_be_bytes());
        hasher.update(one.signature);
        hasher.update(&one.merkle_root);
        digested.transactions += 1;
        digested.readings += one.readings;
        digested.base_units += one.base_units;
    }
    digested.chain_hash = hasher.finalize().into();
    digested
}

/// The first part of what is covered that makes one checkpoint; everything where less is left.
pub(super) fn split_first(covered: &mut BTreeMap<i64, Covered>) -> BTreeMap<i64, Covered> {
    let Some(next) = covered.keys().nth(TRANSACTIONS).copied() else {
        return std::mem::take(covered);
    };
    let rest = covered.split_off(&next);
    std::mem::replace(covered, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(count: i64) -> BTreeMap<i64, Covered> {
        let one = |number: i64| Covered {
            signature: [number.to_be_bytes()[7]; 64],
            merkle_root: vec![7; 32],
            readings: 3,
            base_units: Total::new(5),
        };
        (1..=count).map(|number| (number, one(number))).collect()
    }

    #[test]
    fn a_changed_row_changes_the_hash_and_a_removed_one_the_sums() {
        let whole = covered(4);
        let before = digest(&[0; 32], &whole);
        assert_eq!(
            (before.transactions, before.readings, before.base_units),
            (4, 12, Total::new(20))
        );
        let changes: [fn(&mut BTreeMap<i64, Covered>); 4] = [
            |rows| rows.get_mut(&2).unwrap().signature[0] ^= 1,
            |rows| rows.get_mut(&2).unwrap().merkle_root[0] ^= 1,
            |rows| drop(rows.remove(&2)),
            |rows| {
                let moved = rows.remove(&4).unwrap();
                rows.insert(5, moved);
            },
        ];
        for change in changes {
            let mut changed = whole.clone();
            change(&mut changed);
            assert_ne!(digest(&[0; 32], &changed).chain_hash, before.chain_hash);
        }
        assert_ne!(digest(&[1; 32], &whole).chain_hash, before.chain_hash);
    }

    #[test]
    fn what_is_covered_is_split_in_order() {
        let mut rest = covered(i64::try_from(TRANSACTIONS).unwrap() + 3);
        let first = split_first(&mut rest);
        assert_eq!((first.len(), rest.len()), (TRANSACTIONS, 3));
        assert!(first.keys().max() < rest.keys().min());
        assert_eq!(split_first(&mut rest).len(), 3);
        assert!(rest.is_empty());
    }
}
