//! Packs readings into as few Solana transactions as possible.
//!
//! Invariant: every item is in exactly one transaction, and each transaction is within all limits, unless a single reading
//! exceeds them on its own: that one is marked `oversized` and must not be sent.
//!
//! A signature costs the same for one wallet as for sixty, so transactions should leave full. First fit, costliest first
//! (wallets whose account must be created), leaves no two transactions that could have been one.

use std::collections::HashMap;

use super::bin::{Bin, PackItem, PackLimits, Packed};
use super::wallet::Wallet;

/// Packs every item into exactly one transaction. Items of one wallet become one payment per transaction; where its account is
/// missing, each transaction that pays it creates it, because they may land in any order (creation is idempotent, and its rent is
/// paid once).
pub fn pack(items: Vec<PackItem>, limits: &PackLimits) -> Vec<Packed> {
    let (alone, mut shared): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.alone);
    group_by_wallet(&mut shared);

    let mut closed: Vec<Bin> = alone
        .into_iter()
        .map(|item| Bin::of(item, limits))
        .collect();
    let mut open: Vec<Bin> = Vec::new();
    for item in shared {
        let with_its_wallet = open
            .iter()
            .position(|bin| bin.pays(item.wallet) && bin.admits(&item, limits));
        let first_fit = || open.iter().position(|bin| bin.admits(&item, limits));
        match with_its_wallet.or_else(first_fit) {
            Some(index) => open[index].add(item),
            None => {
                let bin = Bin::of(item, limits);
                if bin.oversized {
                    closed.push(bin);
                } else {
                    open.push(bin);
                }
            }
        }
    }
    // Each bin after the first was opened for an item that did not fit the bins before it, so only the last may wait for more.
    let last = open.pop();
    closed.append(&mut open);
    let packed = closed.into_iter().map(Bin::close);
    let last = last.map(|bin| {
        let full = !bin.admits_another(limits);
        Packed {
            full,
            ..bin.close()
        }
    });
    packed.chain(last).collect()
}

/// Groups the items by wallet: wallets that need an account first, otherwise in the order of arrival.
fn group_by_wallet(items: &mut [PackItem]) {
    let mut wallets: HashMap<Wallet, (bool, usize)> = HashMap::with_capacity(items.len());
    for (order, item) in items.iter().enumerate() {
        let (exists, _) = wallets.entry(item.wallet).or_insert((true, order));
        *exists &= !item.needs_account;
    }
    for item in items.iter_mut() {
        item.needs_account = !wallets[&item.wallet].0;
    }
    items.sort_by_key(|item| wallets[&item.wallet]);
}

#[cfg(test)]
mod tests;
