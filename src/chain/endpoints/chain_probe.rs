//! Probes all endpoints, and reads the accounts that minting needs from the best of them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use solana_sdk::account::Account;
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;

use super::chain_snapshot::ChainSnapshot;
use super::endpoint::Endpoint;
use super::endpoint_health::ProbeResult;
use super::mint_accounts::MintAccounts;
use super::selection::Endpoints;
use super::shared_probe::SharedProbe;
use crate::chain::cause::{Cause, LaggingEndpoint};
use crate::chain::commitment::Finality;
use crate::chain::error::ChainError;
use crate::chain::error_reason::{NoAnswer, UnusableAnswer};
use crate::chain::parameters::ChainCharges;
use crate::chain::slot_clock::ChainPosition;
use crate::telemetry::{metric_value, names};

/// An endpoint that has not answered by then counts as failed: the probe waits for all of them.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The findings of a probe.
#[derive(Clone, Debug)]
pub struct Probed {
    pub snapshot: ChainSnapshot,
    /// For the other processes; `None` unless every endpoint is well.
    pub shared: Option<SharedProbe>,
}

/// Probes the chain.
pub struct ChainProbe {
    endpoints: Endpoints,
    accounts: MintAccounts,
}

impl ChainProbe {
    pub fn new(endpoints: Endpoints, accounts: MintAccounts) -> ChainProbe {
        ChainProbe {
            endpoints,
            accounts,
        }
    }

    /// Queries all endpoints for their heights, chooses the preferred one, and reads the accounts there: the mint, and the fee
    /// payer if it is known.
    pub async fn run(&self, fee_payer: Option<Pubkey>) -> Result<Probed, Cause> {
        let probes = self.probe_endpoints().await;
        let mut failure = None;
        for endpoint in self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_usable())
        {
            match self.read_accounts(endpoint, fee_payer).await {
                Ok(snapshot) => {
                    let address = fee_payer.map(|fee_payer| fee_payer.to_string());
                    let shared = SharedProbe::of(&probes, snapshot, address);
                    return Ok(Probed { snapshot, shared });
                }
                Err(error @ ChainError::MintUnknown { .. }) => {
                    return Err(Cause::MintUnknown(error));
                }
                Err(error) => {
                    self.endpoints.fail_over_from(endpoint, &error);
                    failure = Some(error);
                }
            }
        }
        Err(failure.map_or_else(|| self.none_usable(), Cause::Unreachable))
    }

    /// Takes over what another process found, unless this one knows of a fault itself: then it has to probe by itself.
    /// `age`: how long ago it was found.
    pub fn adopt(
        &self,
        shared: &SharedProbe,
        age: Duration,
        fee_payer: Option<Pubkey>,
    ) -> Option<ChainSnapshot> {
        let configured = self.endpoints.configured();
        if !configured.iter().all(Endpoint::is_usable) || self.is_in_doubt() {
            return None;
        }
        let charges = self.endpoints.parameters().charges()?;
        let address = fee_payer.map(|fee_payer| fee_payer.to_string());
        let snapshot = shared.snapshot(address.as_deref(), charges)?;
        self.record(shared.probes(configured.len())?);
        if let Some(at) = Instant::now().checked_sub(age) {
            self.record_position(at, snapshot.slot, self.endpoints.preferred());
        }
        Some(snapshot)
    }

    /// Whether another probe will show whether some endpoint is behind.
    pub fn is_in_doubt(&self) -> bool {
        let mut configured = self.endpoints.configured().iter();
        configured.any(|endpoint| endpoint.health().is_in_doubt())
    }

    async fn probe_endpoints(&self) -> Vec<ProbeResult> {
        let configured = self.endpoints.configured();
        let probes: Vec<ProbeResult> = join_all(
            configured
                .iter()
                .map(|endpoint| probe(endpoint, &self.accounts.genesis_hash)),
        )
        .await;
        self.record(probes.clone());
        probes
    }

    fn record(&self, probes: Vec<ProbeResult>) {
        self.endpoints.record(probes, Instant::now());
        let consensus = self.endpoints.consensus();
        for label in names::CONSENSUSES {
            let runs = f64::from(u8::from(*label == consensus.label()));
            metrics::gauge!(names::CONSENSUS, "consensus" => *label).set(runs);
        }
        for view in self.endpoints.views() {
            let name = || view.name.clone();
            let healthy = f64::from(u8::from(view.healthy));
            metrics::gauge!(names::RPC_ENDPOINT_HEALTHY, "endpoint" => name()).set(healthy);
            if let Some(height) = view.height {
                metrics::gauge!(names::RPC_ENDPOINT_HEIGHT, "endpoint" => name())
                    .set(metric_value(height));
            }
            if let Some(lag) = view.lag_blocks {
                metrics::gauge!(names::RPC_ENDPOINT_LAG_BLOCKS, "endpoint" => name())
                    .set(metric_value(lag));
            }
        }
    }

    /// The cause for which no endpoint is usable.
    fn none_usable(&self) -> Cause {
        let views = self.endpoints.views();
        if views.iter().all(|view| view.retry_after.is_some()) {
            return Cause::RateLimited;
        }
        let lagging: Vec<LaggingEndpoint> = views
            .into_iter()
            .filter(|view| view.failure.is_none())
            .filter_map(|view| {
                let lag_blocks = view.lag_blocks?;
                Some(LaggingEndpoint {
                    name: view.name,
                    lag_blocks,
                })
            })
            .collect();
        if lagging.is_empty() {
            Cause::Unreachable(self.endpoints.none_usable())
        } else {
            Cause::Lagging(lagging)
        }
    }

    async fn read_accounts(
        &self,
        endpoint: &Endpoint,
        fee_payer: Option<Pubkey>,
    ) -> Result<ChainSnapshot, ChainError> {
        let charges = self.charges(endpoint).await?;
        let addresses: Vec<Pubkey> = fee_payer.into_iter().chain([self.accounts.mint]).collect();
        let accounts = endpoint.hot().get_multiple_accounts_with_commitment(
            &addresses,
            endpoint.commitment(Finality::Confirmed),
        );
        let answer = within_limit(endpoint, accounts).await?;
        let (payers, mint) = match answer.value.as_slice() {
            [payers @ .., mint] if answer.value.len() == addresses.len() => (payers, mint),
            answered => {
                return Err(endpoint.unusable(UnusableAnswer::WrongCount {
                    items: "accounts",
                    requested: addresses.len(),
                    answered: answered.len(),
                }));
            }
        };
        self.accounts.check(mint.as_ref())?;
        let slot = answer.context.slot;
        self.record_position(Instant::now(), slot, endpoint);
        // An account without lamports does not exist.
        let lamports =
            |account: &Option<Account>| account.as_ref().map_or(0, |account| account.lamports);
        Ok(ChainSnapshot {
            slot,
            balance: payers.first().map(lamports),
            charges,
        })
    }

    fn record_position(&self, at: Instant, slot: u64, endpoint: &Endpoint) {
        let height = endpoint.health().height;
        let position = ChainPosition { slot, height };
        self.endpoints.parameters().record_position(at, position);
    }

    /// Read here only until they are known: a separate task refreshes them.
    async fn charges(&self, endpoint: &Endpoint) -> Result<ChainCharges, ChainError> {
        let parameters = self.endpoints.parameters();
        if let Some(charges) = parameters.charges() {
            return Ok(charges);
        }
        let queried = endpoint.charges(&self.accounts.authority);
        let charges = tokio::time::timeout(ANSWER_LIMIT, queried)
            .await
            .unwrap_or_else(|_| Err(not_within_limit(endpoint)))?;
        parameters.set_charges(charges, Instant::now());
        Ok(charges)
    }
}

async fn probe(endpoint: &Endpoint, genesis_hash: &Hash) -> ProbeResult {
    if let Some(wait) = endpoint.rate_limited_for() {
        return ProbeResult::RateLimited(wait);
    }
    let height = endpoint
        .hot()
        .get_block_height_with_commitment(endpoint.commitment(Finality::Confirmed));
    // The node compares itself with the cluster: the only way to detect that a single endpoint lags from the start.
    let health = endpoint.hot().get_health();
    let (chain, (), height, health) = tokio::join!(
        ensure_chain(endpoint, genesis_hash),
        refresh_consensus(endpoint),
        within_limit(endpoint, height),
        within_limit(endpoint, health)
    );
    let reports_behind = match health {
        Err(ChainError::Behind { lag, .. }) => Some(lag.slots().unwrap_or_default()),
        // Not every provider has the method.
        Ok(()) | Err(_) => None,
    };
    // Heights of another chain do not show whether the others lag.
    match chain.and(height) {
        Ok(height) => ProbeResult::Height {
            height,
            reports_behind,
        },
        Err(ChainError::RateLimited { wait, .. }) => ProbeResult::RateLimited(wait),
        Err(error) => ProbeResult::NoAnswer(error),
    }
}

async fn ensure_chain(endpoint: &Endpoint, genesis_hash: &Hash) -> Result<(), ChainError> {
    tokio::time::timeout(ANSWER_LIMIT, endpoint.ensure_chain(genesis_hash))
        .await
        .unwrap_or_else(|_| Err(not_within_limit(endpoint)))
}

/// Without an answer the last one counts, and the next probe queries it again.
async fn refresh_consensus(endpoint: &Endpoint) {
    let _ = tokio::time::timeout(ANSWER_LIMIT, endpoint.refresh_consensus(Instant::now())).await;
}

async fn within_limit<T>(
    endpoint: &Endpoint,
    answer: impl Future<Output = solana_client::client_error::Result<T>>,
) -> Result<T, ChainError> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => endpoint.answer(answer),
        Err(_) => Err(not_within_limit(endpoint)),
    }
}

fn not_within_limit(endpoint: &Endpoint) -> ChainError {
    ChainError::Unreachable {
        endpoint: endpoint.name().to_owned(),
        method: "a probe",
        reason: NoAnswer::NotWithin(ANSWER_LIMIT),
    }
}
