//! One RPC endpoint: a client for each class of calls, their budgets, and its health.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use solana_client::client_error::{ClientError, Result as ClientResult};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::RpcClientConfig;

use super::call_budget::CallBudgets;
use super::capabilities::{Capabilities, CapabilityClock};
use super::endpoint_health::EndpointHealth;
use super::provider_limits::ProviderLimits;
use super::rpc_class::RpcClass;
use super::rpc_sender::{EndpointSender, SharedState};
use super::shared_blockhash::LastBlockhash;
use super::v1_support::V1Support;
use crate::chain::commitment::Commitments;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::domain::hex;
use crate::telemetry::names;

/// One RPC endpoint. Its URL may hold an access key: only the name is ever shown.
pub struct Endpoint {
    name: String,
    fingerprint: String,
    hot: RpcClient,
    background: RpcClient,
    look_up: RpcClient,
    budgets: Arc<CallBudgets>,
    pub(super) commitments: Arc<Commitments>,
    limits: Arc<ProviderLimits>,
    last_blockhash: LastBlockhash,
    capabilities: Mutex<(Capabilities, CapabilityClock)>,
    health: Mutex<EndpointHealth>,
    v1_support: Mutex<V1Support>,
}

impl Endpoint {
    /// `call_limit` ends a wait for one answer.
    pub(super) fn new(
        http: &reqwest::Client,
        name: String,
        url: &str,
        call_limit: Duration,
        budgets: CallBudgets,
    ) -> Endpoint {
        let shared = SharedState {
            budgets: Arc::new(budgets),
            commitments: Arc::default(),
            limits: Arc::new(ProviderLimits::new(name.clone())),
        };
        let client = |class| {
            let sender = EndpointSender::new(
                http.clone(),
                url.to_owned(),
                name.clone(),
                class,
                call_limit,
                shared.clone(),
            );
            let config = RpcClientConfig::with_commitment(Commitments::default_of_calls());
            RpcClient::new_sender(sender, config)
        };
        let (hot, background) = (client(RpcClass::Hot), client(RpcClass::Background));
        let look_up = client(RpcClass::LookUp);
        let SharedState {
            budgets,
            commitments,
            limits,
        } = shared;
        Endpoint {
            name,
            fingerprint: fingerprint_of(url),
            hot,
            background,
            look_up,
            budgets,
            commitments,
            limits,
            last_blockhash: LastBlockhash::default(),
            capabilities: Mutex::default(),
            health: Mutex::default(),
            v1_support: Mutex::default(),
        }
    }

    /// The text after the `#` of its URL, else its place in `SOLANA_RPC_URL`: `rpc-1`, `rpc-2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Identifies its URL in the database: what was read of one endpoint does not count for another one, which may have the
    /// same name. 64 bits of a hash, from which no access key can be derived.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The client for what minting waits for. Every call is limited by the configured time, and one that names no commitment sees
    /// what is confirmed. During a pause of the hot budget each call fails at once without being made.
    pub fn hot(&self) -> &RpcClient {
        &self.hot
    }

    /// The client for what can wait. A call waits for its turn and for the end of a pause; the request itself is limited by the
    /// configured time.
    pub fn background(&self) -> &RpcClient {
        &self.background
    }

    /// The client for one question that can wait or go to another endpoint. A call waits for its turn; during a pause it fails at
    /// once.
    pub fn look_up(&self) -> &RpcClient {
        &self.look_up
    }

    /// The client of this class, for callers that pass the class on.
    pub fn client(&self, class: RpcClass) -> &RpcClient {
        match class {
            RpcClass::Hot => self.hot(),
            RpcClass::Background => self.background(),
            RpcClass::LookUp => self.look_up(),
        }
    }

    /// Time for which calls of this class are not made, because the endpoint refused one.
    pub fn paused_for(&self, class: RpcClass) -> Option<Duration> {
        self.budgets.of(class).pause.remaining(Instant::now())
    }

    /// Time for which minting does not call it.
    pub fn rate_limited_for(&self) -> Option<Duration> {
        self.paused_for(RpcClass::Hot)
    }

    /// Whether minting may call it, it answers, and it is not behind.
    pub fn is_usable(&self) -> bool {
        self.rate_limited_for().is_none() && self.health().is_healthy()
    }

    /// The limits of its provider that it has shown.
    pub(in crate::chain) fn limits(&self) -> &ProviderLimits {
        &self.limits
    }

    /// Its capabilities, as far as they were probed.
    pub fn capabilities(&self) -> Capabilities {
        self.probed_capabilities().0.clone()
    }

    /// Whether its capabilities are to be probed: at start, after it has recovered, and from time to time.
    pub(in crate::chain) fn capabilities_are_due(&self, now: Instant) -> bool {
        let (is_healthy, healthy_since) = {
            let health = self.health();
            (health.is_healthy(), health.healthy_since)
        };
        is_healthy && self.probed_capabilities().1.is_due(healthy_since, now)
    }

    /// Stores what a probe that began at `now` found.
    pub(in crate::chain) fn set_capabilities(&self, found: Capabilities, now: Instant) {
        let mut probed = self.probed_capabilities();
        probed.1.probed(&found, now);
        probed.0 = found.after(&probed.0);
        if let Some(proves) = probed.0.proves_deaths() {
            metrics::gauge!(names::RPC_ENDPOINT_PROVES_DEATHS, "endpoint" => self.name.clone())
                .set(f64::from(u8::from(proves)));
        }
    }

    fn probed_capabilities(&self) -> MutexGuard<'_, (Capabilities, CapabilityClock)> {
        // A panic leaves at worst an older finding.
        self.capabilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::chain) fn last_blockhash(&self) -> &LastBlockhash {
        &self.last_blockhash
    }

    pub(in crate::chain) fn health(&self) -> MutexGuard<'_, EndpointHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::chain) fn v1_support(&self) -> MutexGuard<'_, V1Support> {
        self.v1_support
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's answer, with its error translated.
    pub(in crate::chain) fn answer<T>(&self, answer: ClientResult<T>) -> Result<T, ChainError> {
        answer.map_err(|error: ClientError| ChainError::from_client(&self.name, &error))
    }

    /// Its answer cannot be used.
    pub(in crate::chain) fn unusable(&self, reason: UnusableAnswer) -> ChainError {
        ChainError::Unusable {
            endpoint: self.name.clone(),
            reason,
        }
    }

    /// Whether it answered the last call.
    pub fn answers(&self) -> bool {
        self.health().failure.is_none()
    }

    #[cfg(test)]
    pub(super) fn budgets(&self) -> &CallBudgets {
        &self.budgets
    }
}

fn fingerprint_of(url: &str) -> String {
    hex(&Sha256::digest(url.as_bytes())[..8])
}
