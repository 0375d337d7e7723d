//! Meters and their owners.

mod caller;

pub use caller::{Caller, Role};
