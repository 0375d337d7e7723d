//! The chain and the fee payer on the status page. Endpoints appear by name, never by URL.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Runway;
use crate::chain::{
    Ability, Capabilities, Cause, ChainParameters, CircuitBreaker, Endpoints, MetLimit,
};
use crate::domain::{TransactionFormat, rfc3339_micros};

/// The chain breaker of the process that answers: while it is open, that process does not mint, and no reading uses an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Chain {
    /// `closed` or `open`.
    state: &'static str,
    /// The cause: `unreachable`, `lagging`, `rate_limited`, `failing`, `fee_payer_empty`, `mint_unknown`, `ledger`.
    trouble: Option<&'static str>,
    /// A sentence for the operator.
    reason: Option<String>,
    /// Since when it has had this state.
    since: String,
    /// The consensus that the cluster runs, as the endpoints report it: `alpenglow`, `tower`, or `unknown` while none of them can.
    consensus: &'static str,
    parameters: Parameters,
    /// Format of the next mint transaction of the process that answers, by the preferred endpoint: `legacy` or `v1`.
    transaction_format: &'static str,
    endpoints: Vec<RpcEndpoint>,
}

/// The chain's charges and its speed, as they were read and measured; null until then.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Parameters {
    /// Rent of a new token account.
    token_account_rent_lamports: Option<u64>,
    /// Rent that the fee payer itself must keep.
    fee_payer_minimum_lamports: Option<u64>,
    /// Base fee for one signature.
    signature_lamports: Option<u64>,
    /// Length of a slot, measured over the last minutes.
    slot_ms: Option<f64>,
    /// How long a blockhash lives: 150 blocks at their measured length.
    blockhash_life_secs: Option<f64>,
    /// Whether `TOKENIZATION_TRANSACTION_TIMEOUT_SECS` is longer than that. Calls that a blockhash waits for are then cut at its
    /// life instead.
    transaction_timeout_outlives_blockhash: bool,
}

impl Parameters {
    fn of(parameters: &ChainParameters, call_limit: Duration) -> Parameters {
        let charges = parameters.charges();
        let slot = parameters.slot_length();
        Parameters {
            token_account_rent_lamports: charges.map(|charges| charges.token_account_rent),
            fee_payer_minimum_lamports: charges.map(|charges| charges.fee_payer_minimum),
            signature_lamports: charges.map(|charges| charges.per_signature),
            slot_ms: slot.map(|slot| (slot.as_secs_f64() * 1_000.0).round()),
            blockhash_life_secs: parameters
                .blockhash_life()
                .map(|life| (life.as_secs_f64() * 10.0).round() / 10.0),
            transaction_timeout_outlives_blockhash: parameters.outlives_blockhash(call_limit),
        }
    }
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
    /// The consensus that its cluster runs, as it reports it.
    consensus: &'static str,
    /// Block height at its last answer.
    height: Option<u64>,
    /// Blocks below the highest height that any endpoint reports.
    lag_blocks: Option<u64>,
    /// It answered 429: seconds until it is called again.
    retry_after_secs: Option<u64>,
    /// Why it did not answer.
    error: Option<String>,
    /// Whether it takes v1 transactions; `null` until it has answered.
    takes_v1: Option<bool>,
    /// It refused a background call: seconds until it gets the next one. Minting does not notice.
    background_retry_after_secs: Option<u64>,
    /// Its last answer that could not be used, within the last minute: endpoint, method, and what was wrong.
    strange_answer: Option<String>,
    /// The limits of its provider that it has shown within the last hour.
    limits: Vec<RpcLimit>,
    capabilities: RpcCapabilities,
}

/// A limit of an endpoint's provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RpcLimit {
    method: &'static str,
    /// `rate` (too many calls), `size` (a question that is too large), `method` (not served) or `access` (the key is refused).
    limit: &'static str,
    /// Its answer, shortened.
    answer: String,
    /// The most items of a list that one call may ask for, where that was found out.
    items_max: Option<usize>,
    /// The number of times since it was first met.
    times: u64,
    last_at: String,
}

/// The capabilities of an endpoint. Probed at start, after it has recovered, and hourly.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RpcCapabilities {
    /// Whether it shows finalized blocks: `yes`, `no` or `unknown`.
    blocks: &'static str,
    /// Whether it lists the transactions of an address: `yes`, `no` or `unknown`.
    history: &'static str,
    /// The oldest slot whose block it has: 0 is the whole history.
    first_available_slot: Option<u64>,
    /// Whether it can prove that an expired transaction did not land; null while that is unknown.
    proves_deaths: Option<bool>,
    /// The reason for each capability that it lacks.
    reason: Option<String>,
    probed_at: Option<String>,
}

impl From<MetLimit> for RpcLimit {
    fn from(met: MetLimit) -> RpcLimit {
        RpcLimit {
            method: met.method,
            limit: met.limit.label(),
            answer: met.answer,
            items_max: met.items_max,
            times: met.times,
            last_at: rfc3339_micros(met.last_at),
        }
    }
}

impl From<Capabilities> for RpcCapabilities {
    fn from(probed: Capabilities) -> RpcCapabilities {
        let reasons = [&probed.blocks, &probed.history]
            .into_iter()
            .filter_map(|ability| match ability {
                Ability::No(error) => Some(error.to_string()),
                Ability::Yes | Ability::Unknown => None,
            });
        RpcCapabilities {
            blocks: probed.blocks.label(),
            history: probed.history.label(),
            first_available_slot: probed.first_available_slot,
            proves_deaths: probed.proves_deaths(),
            reason: reasons.reduce(|first, second| format!("{first}; {second}")),
            probed_at: probed.probed_at.map(rfc3339_micros),
        }
    }
}

/// How long the fee payer's balance lasts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunwayView {
    balance_lamports: u64,
    /// The cost that transactions in flight may still take from it.
    reserved_lamports: u64,
    /// The balance that must remain: its own rent minimum.
    minimum_lamports: u64,
    /// Fees and account rent per reading, of the last six hours; before the first, the fee of a transaction for one reading.
    lamports_per_reading: u64,
    readings_per_hour: f64,
    /// At this price and rate: 0 when no further fee can be paid, `null` while there is money and nothing is spent.
    hours: Option<f64>,
    /// Whether readings for wallets without a token account wait, because its rent cannot be paid; others are minted.
    new_wallets_wait: bool,
}

impl Chain {
    /// `call_limit`: of one call, as configured.
    pub fn of(
        circuit_breaker: &CircuitBreaker,
        endpoints: &Endpoints,
        call_limit: Duration,
        format: TransactionFormat,
    ) -> Chain {
        let view = circuit_breaker.view();
        let views = endpoints.views().into_iter();
        Chain {
            state: if view.open.is_some() {
                "open"
            } else {
                "closed"
            },
            trouble: view.open.as_ref().map(Cause::label),
            reason: view.open.map(|cause| cause.to_string()),
            since: rfc3339_micros(view.since),
            consensus: endpoints.consensus().label(),
            parameters: Parameters::of(endpoints.parameters(), call_limit),
            transaction_format: format.as_str(),
            endpoints: views
                .map(|view| RpcEndpoint {
                    background_retry_after_secs: view
                        .background_retry_after
                        .map(|wait| wait.as_secs() + 1),
                    strange_answer: view.strange_answer.map(|error| error.to_string()),
                    limits: view.limits.into_iter().map(RpcLimit::from).collect(),
                    capabilities: RpcCapabilities::from(view.capabilities),
                    name: view.name,
                    preferred: view.preferred,
                    healthy: view.healthy,
                    consensus: view.consensus.label(),
                    height: view.height,
                    lag_blocks: view.lag_blocks,
                    // Rounded up: a fraction of a second is still a wait.
                    retry_after_secs: view.retry_after.map(|wait| wait.as_secs() + 1),
                    error: view.failure.map(|failure| failure.to_string()),
                    takes_v1: view.takes_v1,
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
