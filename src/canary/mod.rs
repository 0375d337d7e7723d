//! The canary: a meter of our own whose reading goes the whole way every minute, so that it is known before a user notices
//! whether readings are minted.
//!
//! It is a real meter of the owner [`OWNER`], with a wallet of its own; its readings are real readings of the smallest amount
//! that pays one base unit or more, one for each minute, and the audit counts them like any others. One process sends them
//! ([`LeaderLock::Canary`](crate::db::LeaderLock)); every process tells how fresh they are, from the database, so that
//! all say the same. While auto-mint is off no reading of it is minted, none is sent, and none is missed.
//!
//! | file | what it does |
//! |---|---|
//! | `sender` | sends a reading and waits until it is minted |
//! | `meter` | which meter, and how much energy |
//! | `freshness` | how long ago a reading made it |

mod freshness;
mod meter;
mod sender;

pub use freshness::{Freshness, watch_freshness};
pub use meter::OWNER;
pub use sender::CanarySender;
