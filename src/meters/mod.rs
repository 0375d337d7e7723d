//! Meters and their owners.
//!
//! Invariant: a serial names one meter, of one owner and one wallet, for ever: nothing here changes a meter once it is
//! registered. Kept by the unique serial, and by answering "the same again" only when every part is the same. So a reading
//! may take the wallet from the meter's row without a lock.
//!
//! Tokens that are minted to an address which nobody can sign for are lost, and nobody can be asked to give them back.
//! Therefore a wallet is judged when the meter is registered: by its bytes ([`Wallet::parse`](crate::domain::Wallet::parse)),
//! and by what lives at that address on chain.

mod caller;
mod error;
mod list;
mod meter;
mod registration;
mod store;
mod wallet_account;

pub use caller::{Caller, Role};
pub use error::MeterError;
pub use list::{METERS_PER_PAGE_DEFAULT, METERS_PER_PAGE_MAX, MeterPage, MeterSummary, list};
pub use meter::Meter;
pub use registration::{NewMeter, Registration, register};
pub(crate) use store::{find_by_serial, find_by_serials};
pub use wallet_account::payable_wallet;
