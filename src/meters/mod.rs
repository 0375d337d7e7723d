//! Meters and their owners.
//!
//! Invariant: a serial names one meter, of one owner and one wallet, permanently: a registered meter never changes. Kept by
//! the unique serial, and by accepting a repeated registration only when every value is the same. So the intake reads the
//! wallet from the meter's row without a lock.
//!
//! Tokens minted to an address that no one can sign for are lost. Therefore a wallet is checked when its meter is registered:
//! its bytes ([`Wallet::parse`](crate::domain::Wallet::parse)), and the account at that address on chain.

mod caller;
mod error;
mod list;
mod meter;
mod meters_table;
mod registration;
mod wallet_account;

pub use caller::{Caller, Role};
pub use error::MeterError;
pub use list::{METERS_PER_PAGE_DEFAULT, METERS_PER_PAGE_MAX, MeterPage, MeterSummary, list};
pub use meter::Meter;
pub(crate) use meters_table::{find_by_serial, find_by_serials};
pub use registration::{NewMeter, Registration, register};
pub use wallet_account::payable_wallet;
