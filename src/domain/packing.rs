//! Which readings share a Solana transaction.
//!
//! Invariant: every item is in exactly one transaction, and each transaction is within all limits, unless a single reading
//! passes them by itself: that one is marked `oversized` and must not be sent.
//!
//! A signature costs the same for one wallet as for nineteen, so transactions should leave full. First fit, costliest first
//! (wallets whose account must be created), is within a fifth of the best packing and takes no time worth measuring.

use std::collections::HashMap;

use uuid::Uuid;

use super::tokens::BaseUnits;
use super::transaction::{Payment, Shape};
use super::wallet::Wallet;

/// A reading that waits to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackItem {
    pub reading_id: Uuid,
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    /// The wallet's token account is not there yet.
    pub needs_account: bool,
    /// It failed on chain before: it gets a transaction of its own, so that it can hurt nobody.
    pub alone: bool,
}

/// What one transaction may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    pub max_readings: usize,
    pub max_base_units: BaseUnits,
    pub max_bytes: usize,
    pub max_compute_units: u32,
    /// Fee payer and mint authority are two keys: a second signature and address.
    pub separate_fee_payer: bool,
}

/// The readings of one transaction, and what it pays: a wallet's readings are one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub readings: Vec<Uuid>,
    pub payments: Vec<Payment>,
    /// Sum of the payments.
    pub base_units: BaseUnits,
    /// A ceiling; the transaction asks for less.
    pub compute_units: u32,
    /// On the wire, signatures included.
    pub bytes: usize,
    /// Waiting for more readings would not make it fuller. At most one of a call's transactions is not full.
    pub full: bool,
    /// Past a limit although it holds one reading only: it cannot be paid under these limits.
    pub oversized: bool,
}

impl Packed {
    pub fn account_creations(&self) -> usize {
        self.payments
            .iter()
            .filter(|payment| payment.create_account)
            .count()
    }
}

/// Packs every item into exactly one transaction. Items of one wallet become one payment per transaction; where its account
/// is missing, each transaction that pays it creates it, since they may land in any order (creating is idempotent, and paid once).
pub fn pack(items: Vec<PackItem>, limits: &PackLimits) -> Vec<Packed> {
    let (alone, mut shared): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.alone);
    group_by_wallet(&mut shared);

    let mut closed: Vec<Draft> = alone
        .into_iter()
        .map(|item| Draft::of(item, limits))
        .collect();
    let mut open: Vec<Draft> = Vec::new();
    for item in shared {
        let with_its_wallet = open
            .iter()
            .position(|draft| draft.pays(item.wallet) && draft.admits(&item, limits));
        let first_fit = || open.iter().position(|draft| draft.admits(&item, limits));
        match with_its_wallet.or_else(first_fit) {
            Some(index) => open[index].add(item),
            None => {
                let draft = Draft::of(item, limits);
                if draft.oversized {
                    closed.push(draft);
                } else {
                    open.push(draft);
                }
            }
        }
    }
    // A draft behind another one was opened for an item that the other turned away: so only the last may wait for more.
    let last = open.pop();
    closed.append(&mut open);
    let packed = closed.into_iter().map(|draft| draft.close(true));
    let last = last.map(|draft| {
        let full = !draft.admits_another(limits);
        draft.close(full)
    });
    packed.chain(last).collect()
}

/// Puts the items of one wallet side by side, wallets that need an account first, else in the order they came.
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

/// A transaction that is being filled.
struct Draft {
    readings: Vec<Uuid>,
    payments: Vec<Payment>,
    base_units: BaseUnits,
    shape: Shape,
    oversized: bool,
}

impl Draft {
    fn of(item: PackItem, limits: &PackLimits) -> Draft {
        let mut draft = Draft {
            readings: Vec::new(),
            payments: Vec::new(),
            base_units: BaseUnits::ZERO,
            shape: Shape {
                payments: 0,
                creations: 0,
                separate_fee_payer: limits.separate_fee_payer,
            },
            oversized: false,
        };
        draft.oversized = !draft.admits(&item, limits);
        draft.add(item);
        draft
    }

    /// Items come wallet by wallet, so that a wallet that was paid here lately is the last one.
    fn pays(&self, wallet: Wallet) -> bool {
        self.payments
            .last()
            .is_some_and(|payment| payment.wallet == wallet)
    }

    fn admits(&self, item: &PackItem, limits: &PackLimits) -> bool {
        let shape = self.shape_with(item);
        let base_units = self.base_units.checked_add(item.base_units);
        self.readings.len() < limits.max_readings
            && base_units.is_some_and(|base_units| base_units <= limits.max_base_units)
            && within(shape, limits)
    }

    /// Whether one more wallet with an account would fit.
    fn admits_another(&self, limits: &PackLimits) -> bool {
        let shape = Shape {
            payments: self.shape.payments + 1,
            ..self.shape
        };
        self.readings.len() < limits.max_readings
            && self.base_units < limits.max_base_units
            && within(shape, limits)
    }

    fn shape_with(&self, item: &PackItem) -> Shape {
        if self.pays(item.wallet) {
            return self.shape;
        }
        Shape {
            payments: self.shape.payments + 1,
            creations: self.shape.creations + usize::from(item.needs_account),
            ..self.shape
        }
    }

    fn add(&mut self, item: PackItem) {
        self.shape = self.shape_with(&item);
        self.readings.push(item.reading_id);
        self.base_units = plus(self.base_units, item.base_units);
        match self.payments.last_mut() {
            Some(payment) if payment.wallet == item.wallet => {
                payment.base_units = plus(payment.base_units, item.base_units);
            }
            _ => self.payments.push(Payment {
                wallet: item.wallet,
                base_units: item.base_units,
                create_account: item.needs_account,
            }),
        }
    }

    fn close(self, full: bool) -> Packed {
        Packed {
            base_units: self.base_units,
            compute_units: self.shape.compute_units(),
            bytes: self.shape.bytes(),
            full,
            oversized: self.oversized,
            readings: self.readings,
            payments: self.payments,
        }
    }
}

fn within(shape: Shape, limits: &PackLimits) -> bool {
    shape.bytes() <= limits.max_bytes
        && shape.compute_units() <= limits.max_compute_units
        && shape.fits_trace()
}

/// Only called where [`Draft::admits`] has found that the sum fits, or with nothing on the left.
fn plus(left: BaseUnits, right: BaseUnits) -> BaseUnits {
    left.checked_add(right)
        .expect("admitted only if the sum fits")
}
