//! What every handler can reach.

use std::ops::Deref;
use std::sync::Arc;

use axum::http::HeaderValue;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::auth::authenticator::Authenticator;
use crate::api::auth::rate_limit::RateLimiter;
use crate::api::operations::state::Operations;
use crate::chain::{CircuitBreaker, Endpoints, FeeBudget};
use crate::config::{EffectiveConfig, WebsocketConfig};
use crate::feed::{DrainSchedule, Hub};
use crate::mint::Estimator;
use crate::readings::Intake;
use crate::telemetry::{Health, Metrics};

/// The parts that the program puts together at start.
pub struct Services {
    pub pool: PgPool,
    /// Takes readings.
    pub intake: Intake,
    /// The chain, to look at wallets.
    pub endpoints: Endpoints,
    /// Whether minting goes on, for the status page.
    pub circuit_breaker: CircuitBreaker,
    /// What the fee payer can spend, for the status page.
    pub fee_budget: FeeBudget,
    /// This service's token.
    pub mint: Pubkey,
    /// What minting would take.
    pub estimator: Estimator,
    pub authenticator: Authenticator,
    pub rate_limiter: RateLimiter,
    /// What an admin may change at run time, as this process knows it.
    pub health: Health,
    pub metrics: Metrics,
    /// CORS_ORIGINS: origins whose pages may call this service.
    pub cors_origins: Vec<HeaderValue>,
    /// TOKENIZATION_POLLING_INTERVAL_SECS, for the status page.
    pub polling_interval_secs: u64,
    /// TOKENIZATION_BATCH_SIZE, for the status page.
    pub batch_size: u32,
    /// The settings, for the status page.
    pub configuration: EffectiveConfig,
    /// Cancelled when the service drains: no stream is opened any more.
    pub draining: CancellationToken,
    /// When open streams leave a process that drains.
    pub drain_schedule: DrainSchedule,
    /// The numbered events, for every listener of this process.
    pub feed: Hub,
    pub websocket: WebsocketConfig,
    /// Upgraded connections, which end by `draining`.
    pub connections: TaskTracker,
}

/// Shared by all handlers; a clone costs a counter.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    services: Services,
    operations: Operations,
}

impl AppState {
    pub fn new(services: Services) -> AppState {
        let operations = Operations::new(
            services.pool.clone(),
            services.health.clone(),
            services.metrics.clone(),
            services.fee_budget.clone(),
        );
        AppState(Arc::new(Shared {
            services,
            operations,
        }))
    }

    /// The part that health and metrics work with.
    pub fn operations(&self) -> &Operations {
        &self.0.operations
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0.services
    }
}

/// State for tests of the door: its database is at `database`, where usually nothing listens.
#[cfg(test)]
pub(super) fn test_state(database: &str, requests_per_minute: u32) -> AppState {
    use crate::api::auth::authenticator::TokenKeys;
    use crate::chain::{MintAccounts, PriorityFees};
    use crate::mint::{ChainHandle, FeePayerSource};

    let config = crate::config::Config::defaults();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(std::time::Duration::from_secs(30))
        .connect_lazy(database)
        .unwrap();
    let secret = TokenKeys::Secret("0123456789abcdef0123456789abcdef".to_owned());
    let intake = Intake::start(
        pool.clone(),
        &config.intake,
        &config.tokenization,
        &config.blockchain,
        &tokio_util::task::TaskTracker::new(),
    );
    let feed = Hub::at(
        pool.clone(),
        crate::feed::Seq::default(),
        config.tokenization.transaction_timeout,
    );
    let endpoints = Endpoints::new(
        &["http://127.0.0.1:9".to_owned()],
        std::time::Duration::from_secs(1),
    );
    AppState::new(Services {
        pool,
        intake,
        estimator: Estimator::new(
            ChainHandle::new(
                endpoints.clone(),
                MintAccounts {
                    genesis_hash: Default::default(),
                    mint: Pubkey::default(),
                    authority: Pubkey::default(),
                    decimals: config.tokenization.decimals,
                },
                FeePayerSource::Ledger(None),
                PriorityFees::new(
                    config.blockchain.priority_fee,
                    config.blockchain.priority_fee_max,
                ),
            ),
            50,
            crate::domain::BaseUnits::new(1),
        ),
        circuit_breaker: CircuitBreaker::default(),
        fee_budget: FeeBudget::default(),
        endpoints,
        mint: Pubkey::default(),
        authenticator: Authenticator::new(secret, None, None).unwrap(),
        rate_limiter: RateLimiter::per_minute(requests_per_minute.try_into().unwrap()),
        health: Health::default(),
        metrics: Metrics::install().unwrap(),
        cors_origins: vec![HeaderValue::from_static("https://grid.example")],
        polling_interval_secs: 60,
        batch_size: 50,
        configuration: config.effective,
        drain_schedule: DrainSchedule::within(
            CancellationToken::new(),
            std::time::Duration::from_secs(1),
        ),
        draining: CancellationToken::new(),
        feed,
        websocket: config.websocket,
        connections: TaskTracker::new(),
    })
}
