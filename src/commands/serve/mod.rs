//! `serve`: puts the rooms together, runs them, and takes them down in order.
//!
//! | file | what it does |
//! |---|---|
//! | `command` | the subcommand: serves until a signal |
//! | `solana` | endpoints, keys and mint; makes mint and funding once on a local chain |
//! | `open_files` | room for as many connections as are configured |
//! | `start` | starts every room |
//! | `drain` | the order in which they end |

mod command;
mod drain;
mod error;
mod open_files;
mod solana;
mod start;

pub use command::{ServeArgs, run};
pub use drain::RunningService;
pub use error::StartError;
pub use start::start;
