//! The integration tests: real Postgres, real local chain, the real program. One file for each promise.

mod api;
mod chain_faults;
mod embedded;
mod exactly_once;
mod feed;
mod holder;
mod localnet;
mod run;
mod support;
