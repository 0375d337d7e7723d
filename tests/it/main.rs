//! The integration tests: real Postgres, a real local chain, the real program. One folder for each guarantee.

mod admin;
mod feed;
mod intake;
mod minting;
mod operations;
mod recovery;
mod support;
