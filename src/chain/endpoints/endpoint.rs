//! One RPC endpoint: its client, its rate-limit pause and its health.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use solana_client::client_error::{ClientError, Result as ClientResult};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::RpcClientConfig;
use solana_commitment_config::CommitmentConfig;

use super::endpoint_health::EndpointHealth;
use super::rate_limit::RateLimitPause;
use super::rpc_sender::EndpointSender;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;

/// One RPC endpoint. Its URL may hold an access key: only the name is ever shown.
pub struct Endpoint {
    name: String,
    rpc: RpcClient,
    rate_limit: Arc<RateLimitPause>,
    health: Mutex<EndpointHealth>,
}

impl Endpoint {
    /// `call_limit` ends a wait for one answer; `rate_limit_wait` is how long a call waits for the end of a pause.
    pub(super) fn new(
        http: reqwest::Client,
        name: String,
        url: &str,
        call_limit: Duration,
        rate_limit_wait: Duration,
    ) -> Endpoint {
        let rate_limit = Arc::new(RateLimitPause::default());
        let sender = EndpointSender::new(
            http,
            url.to_owned(),
            name.clone(),
            Arc::clone(&rate_limit),
            call_limit,
            rate_limit_wait,
        );
        let config = RpcClientConfig::with_commitment(CommitmentConfig::confirmed());
        Endpoint {
            name,
            rpc: RpcClient::new_sender(sender, config),
            rate_limit,
            health: Mutex::default(),
        }
    }

    /// What follows the `#` of its URL, else its place in `SOLANA_RPC_URL`: `rpc-1`, `rpc-2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client; default commitment `confirmed`, every call limited by the configured time. During a rate-limit pause (429)
    /// each call fails at once without being made.
    pub fn rpc(&self) -> &RpcClient {
        &self.rpc
    }

    /// How long the endpoint gets no calls because it answered 429.
    pub fn rate_limited_for(&self) -> Option<Duration> {
        self.rate_limit.remaining(Instant::now())
    }

    /// Whether it may be called, answers, and is not behind.
    pub fn is_usable(&self) -> bool {
        self.rate_limited_for().is_none() && self.health().is_healthy()
    }

    pub(in crate::chain) fn health(&self) -> MutexGuard<'_, EndpointHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[cfg(test)]
    pub(super) fn rate_limit(&self) -> &RateLimitPause {
        &self.rate_limit
    }
}
