//! The canary: this service's own meter, whose reading is minted every minute, so that a failure of minting is detected
//! before a user notices it.
//!
//! It is a real meter of the owner [`OWNER`], with its own wallet. Its readings are real readings of the smallest amount
//! that pays one base unit or more, one for each minute, and the audit counts them like any others. One process sends them
//! ([`LeaderLock::Canary`](crate::db::LeaderLock)); every process reports their age from the database, so that all report the
//! same. While auto-mint is off, none of its readings is minted, none is sent, and none counts as missing.
//!
//! | file | what it does |
//! |---|---|
//! | `sender` | sends a reading and waits until it is minted |
//! | `canary_meter` | which meter, and how much energy |
//! | `freshness` | how long ago a reading was minted |

mod canary_meter;
mod freshness;
mod sender;

pub use canary_meter::OWNER;
pub use freshness::{Freshness, freshness_watch};
pub use sender::CanarySender;
