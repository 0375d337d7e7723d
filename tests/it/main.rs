//! The integration tests: real Postgres, real local chain, the real program. One folder for each promise.

mod admin;
mod feed;
mod intake;
mod minting;
mod operations;
mod recovery;
mod support;
