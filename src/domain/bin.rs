//! One transaction while readings are packed into it: what it holds, and whether another reading fits.

use uuid::Uuid;

use super::shape::Shape;
use super::tokens::BaseUnits;
use super::transaction::Payment;
use super::transaction_format::TransactionFormat;
use super::wallet::Wallet;

/// A reading that waits to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackItem {
    pub reading_id: Uuid,
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    /// The wallet's token account does not exist yet.
    pub needs_account: bool,
    /// It failed on chain before: it gets its own transaction, so that it cannot make other readings fail.
    pub alone: bool,
}

/// The limits of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    pub format: TransactionFormat,
    pub max_readings: usize,
    pub max_base_units: BaseUnits,
    /// At most [`TransactionFormat::bytes_max`].
    pub max_bytes: usize,
    pub max_compute_units: u32,
    /// Fee payer and mint authority are two keys: a second signature and address.
    pub separate_fee_payer: bool,
    /// A priority fee is offered, which takes more bytes.
    pub priced: bool,
}

impl PackLimits {
    /// Whether a transaction of this shape stays within the limits of bytes, compute units, addresses and instructions.
    pub(super) fn allow(&self, shape: Shape) -> bool {
        shape.bytes() <= self.max_bytes
            && shape.compute_units() <= self.max_compute_units
            && shape.fits_counts()
    }
}

/// The readings of one transaction, and what it pays: a wallet's readings are one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub readings: Vec<Uuid>,
    pub payments: Vec<Payment>,
    /// Sum of the payments.
    pub base_units: BaseUnits,
    /// A ceiling; the transaction requests less.
    pub compute_units: u32,
    /// The part of these that is for account creations.
    pub creation_compute_units: u32,
    /// Of the signed transaction, signatures included.
    pub bytes: usize,
    /// Waiting for more readings would not make it fuller. At most one transaction of a call is not full.
    pub full: bool,
    /// Above a limit although it holds one reading only: that reading cannot be paid under these limits.
    pub oversized: bool,
}

impl Packed {
    pub fn account_creations(&self) -> u32 {
        self.payments
            .iter()
            .map(|payment| u32::from(payment.create_account))
            .sum()
    }
}

/// A transaction that is being filled.
pub(super) struct Bin {
    readings: Vec<Uuid>,
    payments: Vec<Payment>,
    base_units: BaseUnits,
    shape: Shape,
    /// Above a limit although it holds one reading only.
    pub(super) oversized: bool,
}

impl Bin {
    pub(super) fn of(item: PackItem, limits: &PackLimits) -> Bin {
        let mut bin = Bin {
            readings: Vec::new(),
            payments: Vec::new(),
            base_units: BaseUnits::ZERO,
            shape: Shape {
                format: limits.format,
                payments: 0,
                creations: 0,
                separate_fee_payer: limits.separate_fee_payer,
                priced: limits.priced,
            },
            oversized: false,
        };
        bin.oversized = !bin.admits(&item, limits);
        bin.add(item);
        bin
    }

    /// Items arrive wallet by wallet, so a wallet that this transaction pays is the last one.
    pub(super) fn pays(&self, wallet: Wallet) -> bool {
        self.payments
            .last()
            .is_some_and(|payment| payment.wallet == wallet)
    }

    pub(super) fn admits(&self, item: &PackItem, limits: &PackLimits) -> bool {
        let shape = self.shape_with(item);
        let base_units = self.base_units.checked_add(item.base_units);
        self.readings.len() < limits.max_readings
            && base_units.is_some_and(|base_units| base_units <= limits.max_base_units)
            && limits.allow(shape)
    }

    /// Whether one more wallet with an account would fit.
    pub(super) fn admits_another(&self, limits: &PackLimits) -> bool {
        let shape = Shape {
            payments: self.shape.payments + 1,
            ..self.shape
        };
        self.readings.len() < limits.max_readings
            && self.base_units < limits.max_base_units
            && limits.allow(shape)
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

    pub(super) fn add(&mut self, item: PackItem) {
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

    /// The finished transaction, which counts as full: its caller decides whether it waits for more.
    pub(super) fn close(self) -> Packed {
        Packed {
            base_units: self.base_units,
            compute_units: self.shape.compute_units(),
            creation_compute_units: self.shape.creation_compute_units(),
            bytes: self.shape.bytes(),
            full: true,
            oversized: self.oversized,
            readings: self.readings,
            payments: self.payments,
        }
    }
}

/// Only called where [`Bin::admits`] has found that the sum fits, or with nothing on the left.
fn plus(left: BaseUnits, right: BaseUnits) -> BaseUnits {
    left.checked_add(right)
        .expect("admitted only if the sum fits")
}
