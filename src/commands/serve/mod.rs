//! `serve`: puts the rooms together, runs them, and takes them down in order.
//!
//! | file | what it does |
//! |---|---|
//! | `database` | opens the pool, refuses a pooler that would break the service silently, runs the migrations |
//! | `solana` | endpoints, keys and mint; makes mint and funding once on a local chain |
//! | `start` | starts every room |
//! | `drain` | the order in which they end |

mod database;

mod error;
mod solana;



pub use error::StartError;

