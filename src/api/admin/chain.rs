//! The chain and the fee payer on the status page. Endpoints appear by name, never by URL.

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Runway;
use crate::chain::{Cause, CircuitBreaker, Endpoints};
use crate::domain::rfc3339_micros;

/// The chain breaker of the process that answers: while it is open, that process does not mint, and no reading uses an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Chain {
    /// `closed` or `open`.
    state: &'static str,
    /// What is wrong: `unreachable`, `lagging`, `rate_limited`, `failing`, `fee_payer_empty`, `mint_unknown`, `ledger`.
    trouble: Option<&'static str>,
    /// A sentence for the operator.
    reason: Option<String>,
    /// Since when it has had this state.
    since: String,
    endpoints: Vec<RpcEndpoint>,
}

/// An RPC endpoint, in the order of `SOLANA_RPC_URL`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RpcEndpoint {
    /// `rpc-1`, `rpc-2`, …
    name: String,
    /// Whether it is queried first.
    preferred: bool,
    /// Whether it answers, is not behind, and is not rate-limiting.
    healthy: bool,
    /// Block height at its last answer.
    height: Option<u64>,
    /// Blocks below the highest height that any endpoint reports.
    lag_blocks: Option<u64>,
    /// It answered 429: seconds until it is called again.
    retry_after_secs: Option<u64>,
    /// Why it did not answer.
    error: Option<String>,
}

/// How long the fee payer's balance lasts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunwayView {
    balance_lamports: u64,
    /// What transactions in flight may still take from it.
    reserved_lamports: u64,
    /// What must remain: its own rent minimum.
    minimum_lamports: u64,
    /// Fees and account rent per reading, of the last six hours; before the first, a fee of 5,000 lamports is assumed.
    lamports_per_reading: u64,
    readings_per_hour: f64,
    /// At this price and rate: 0 when no further fee can be paid, `null` while there is money and nothing is spent.
    hours: Option<f64>,
    /// Whether readings for wallets without a token account wait, because its rent cannot be paid; others are minted.
    new_wallets_wait: bool,
}

impl Chain {
    pub fn of(circuit_breaker: &CircuitBreaker, endpoints: &Endpoints) -> Chain {
        let view = circuit_breaker.view();
        let endpoints = endpoints.views().into_iter();
        Chain {
            state: if view.open.is_some() {
                "open"
            } else {
                "closed"
            },
            trouble: view.open.as_ref().map(Cause::label),
            reason: view.open.map(|cause| cause.to_string()),
            since: rfc3339_micros(view.since),
            endpoints: endpoints
                .map(|view| RpcEndpoint {
                    name: view.name,
                    preferred: view.preferred,
                    healthy: view.healthy,
                    height: view.height,
                    lag_blocks: view.lag_blocks,
                    // Rounded up: a fraction of a second is still a wait.
                    retry_after_secs: view.retry_after.map(|wait| wait.as_secs() + 1),
                    error: view.failure.map(|failure| failure.to_string()),
                })
                .collect(),
        }
    }
}

impl From<Runway> for RunwayView {
    fn from(runway: Runway) -> RunwayView {
        RunwayView {
            balance_lamports: runway.balance_lamports,
            reserved_lamports: runway.reserved_lamports,
            minimum_lamports: runway.minimum_lamports,
            lamports_per_reading: runway.lamports_per_reading,
            readings_per_hour: runway.readings_per_hour,
            hours: runway.hours,
            new_wallets_wait: runway.new_wallets_wait,
        }
    }
}
