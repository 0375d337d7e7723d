//! The product's terms as types: energy, tokens, intervals, wallets, states, and what a transaction proves about them on chain.
//!
//! Invariant: this room is pure. No IO, no clock, no async, no dependency on another room; the same arguments give the same
//! result in the service, in the audit and in a third party's verifier. A value that a type cannot hold exactly is rejected,
//! never rounded; the only rounding, from energy to tokens, goes down ([`Kwh::to_base_units`]).
//!
//! The error of a value begins with the value, so that a caller can put the field's name in front:
//!
//! ```
//! use gridtokenx::domain::Kwh;
//!
//! let error = Kwh::parse("-1.5").unwrap_err();
//! assert_eq!(format!("kwh_amount {error}"), "kwh_amount -1.5 is negative; a reading reports energy above 0 kWh");
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `energy` | [`Kwh`] |
//! | `tokens` | [`BaseUnits`], [`TokenRate`], and the conversion from energy |
//! | `hex` | hashes as text |
//! | `timestamp`, `rfc3339`, `interval` | RFC 3339 read and written, and the half-open span that a reading pays |
//! | `serial`, `wallet` | [`MeterSerial`], [`Wallet`] |
//! | `exact`, `excerpt` | exact decimals from text; text quoted in errors |
//! | `mint_number`, `tx_signature` | [`MintNumber`], [`TxSignature`]: how ledger and chain name a mint transaction |
//! | `reading_state`, `mint_transaction_state` | the two state machines |
//! | `merkle`, `memo` | how a mint transaction commits to its readings (`docs/receipts.md`) |
//! | `adoption` | which readings a mint transaction paid, found from its sums and root |
//! | `packing`, `bin` | which readings share a transaction; one transaction while it is being filled |
//! | `transaction_format`, `shape` | the formats of mint transactions; the size of one, by its format |
//! | `transaction`, `message` | its instructions, and the message that they are compiled into |
//! | `compute`, `loaded_data`, `priority_fee` | its compute units, the account data that it may load, and the price of a compute unit |
//! | `signed_bytes` | signed transactions of all versions as bytes, and back |
//! | `call_rate` | how many calls a second |
//! | `signing_permission` | whether mint transactions may be signed, and if not, why |
//! | `auth_error` | the errors of a bearer token |
//! | `backoff` | how long to wait after a failure: the one exponential schedule, and a list of everything that uses it |

mod adoption;
mod auth_error;
mod backoff;
mod bin;
mod call_rate;
mod compute;
mod energy;
mod exact;
mod excerpt;
mod hex;
mod interval;
mod loaded_data;
mod memo;
mod merkle;
mod message;
mod mint_number;
mod mint_transaction_state;
mod packing;
mod priority_fee;
mod reading_state;
mod rfc3339;
mod serial;
mod shape;
pub mod signed_bytes;
mod signing_permission;
mod timestamp;
mod tokens;
mod transaction;
mod transaction_format;
mod transition;
mod tx_signature;
mod wallet;

pub use adoption::{Adoption, PaidWallet, UnpaidReading, adoption};
pub use auth_error::{
    AuthError, InvalidClaims, MalformedToken, SUBJECT_CHARS_MAX, TOKEN_BYTES_MAX,
};
pub use backoff::{Backoff, Jitter, Retries};
pub use bin::{PackItem, PackLimits, Packed};
pub use call_rate::CallRate;
pub use compute::{
    COMPUTE_UNITS_MAX, CREATE_COMPUTE_UNITS_MAX, ComputePlan, PAYMENT_COMPUTE_UNITS_MAX,
};
pub use energy::{Kwh, KwhError};
pub use excerpt::truncated;
pub use hex::hex;
pub use interval::{Interval, IntervalError};
pub use loaded_data::LOADED_BYTES_MAX;
pub use memo::{MEMO_BYTES, Memo};
pub use merkle::{Hash32, Leaf, audit_path, root, root_of, verify_path};
pub use message::{InvalidMessage, RequestedLimits, set_limits};
pub use mint_number::{MintNumber, MintNumberError};
pub use mint_transaction_state::{MintTransactionEvent, MintTransactionState};
pub use packing::pack;
pub use priority_fee::{ComputeUnitPrice, Percentile, PriorityFeePolicy, market_price};
pub use reading_state::{ReadingEvent, ReadingState};
pub use rfc3339::{
    rfc3339_micros, rfc3339_secs, rfc3339_shortest, serialize_rfc3339_micros,
    serialize_rfc3339_millis,
};
pub use serial::{MeterSerial, SerialError};
pub use signing_permission::{LedgerBreakerState, NotScannedReason, OpenReason, SigningRefused};
pub use timestamp::{TimestampError, parse_timestamp};
pub use tokens::{BaseUnits, BaseUnitsError, RateError, TokenRate};
pub use transaction::{Instructions, Payment, TransactionTerms, instructions};
pub use transaction_format::{
    NEWEST_TRANSACTION_VERSION, TransactionFormat, TransactionFormatPolicy,
};
pub use transition::{IllegalTransition, UnknownState};
pub use tx_signature::{TxSignature, TxSignatureError};
pub use wallet::{Wallet, WalletError};
