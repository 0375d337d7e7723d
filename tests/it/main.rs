//! The integration tests: real Postgres, real local chain, the real program. One file for each promise.

mod accounts;
mod api;
mod audit;
mod batches;
mod chain_faults;
mod database_faults;
mod documents;
mod drain;
mod embedded;
mod exactly_once;
mod feed;
mod feed_connections;
mod feed_oracle;
mod holder;
mod intake;
mod intake_bulk;
mod intake_faults;
mod intake_rules;
mod localnet;
mod meters;
mod queue;
mod readings;
mod restore;
mod run;
mod support;
mod sweep;
