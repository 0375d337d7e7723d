//! The integration tests: real Postgres, real local chain, the real program. One file for each promise.

mod api;
mod chain_faults;
mod exactly_once;
mod localnet;
mod run;
mod support;
