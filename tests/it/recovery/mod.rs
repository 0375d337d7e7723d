//! Whatever fails, recovers, or is restored to an earlier state: nothing is lost and nothing is paid twice.

mod adopt;
mod alpenglow;
mod audit;
mod audit_corruptions;
mod audit_incremental;
mod backup;
mod chain_faults;
mod circuit_breaker;
mod database_faults;
mod embedded;
mod endpoints;
mod frozen;
mod history_scan;
mod leader_lock;
mod localnet;
mod panics;
mod proof_of_death;
mod provider_limits;
mod restore;
mod rpc_budget;
mod silent_sessions;
