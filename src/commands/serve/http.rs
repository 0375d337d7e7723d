//! Starts the HTTP server: the whole API, or health and metrics alone.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::base::Base;
use super::periodic_tasks::{key_set, of_api};
use super::start_error::StartError;
use crate::api::{
    self, AppState, Authenticator, CallerAuth, ChainAccess, ConnectionDrain, CorsOrigins,
    HttpServer, LiveFeed, MintingStatus, Operations, ShownSettings,
};
use crate::commands::tokens;
use crate::config::Config;
use crate::domain::BaseUnits;
use crate::feed;
use crate::mint::{ChainHandle, Estimator};
use crate::readings::Intake;

/// The running HTTP server.
pub(super) struct Http {
    pub address: SocketAddr,
    pub server: TaskTracker,
    pub drain: ConnectionDrain,
}

/// Serves on the listener. `api`: `None` in a process that serves health and metrics alone.
pub(super) fn start_http(
    operations: Operations,
    listener: TcpListener,
    drain: ConnectionDrain,
    api: Option<AppState>,
) -> Result<Http, StartError> {
    let router = match &api {
        Some(state) => api::router(state.clone()),
        None => api::operations_router(operations.clone()),
    };
    let address = listener.local_addr().map_err(StartError::LocalAddress)?;
    let server = TaskTracker::new();
    server.spawn(api::serve(
        listener,
        HttpServer {
            router,
            operations,
            api,
            drain: drain.clone(),
        },
    ));
    server.close();
    Ok(Http {
        address,
        server,
        drain,
    })
}

/// Health and metrics.
pub(super) fn operations(base: &Base, chain: &ChainHandle) -> Operations {
    Operations::new(
        base.database.pool.clone(),
        base.health.clone(),
        base.metrics.clone(),
        chain.fee_budget.clone(),
    )
}

/// Starts intake and feed, and gathers what the handlers of the API need.
pub(super) async fn open_api(
    base: &Base,
    chain: &ChainHandle,
    operations: Operations,
    drain: &ConnectionDrain,
) -> Result<AppState, StartError> {
    let (config, pool) = (&base.config, &base.database.pool);
    let auth = caller_auth(base).await?;
    let hub = feed::Hub::open(pool.clone(), config.tokenization.transaction_timeout).await?;
    for task in of_api(base, &auth, &hub) {
        base.start_periodic(task);
    }
    let intake = Intake::start(
        pool.clone(),
        &config.intake,
        &config.tokenization,
        &config.blockchain,
        &base.tasks.work,
    );
    Ok(AppState {
        pool: pool.clone(),
        auth,
        intake,
        chain: ChainAccess {
            endpoints: chain.endpoints.clone(),
            mint: chain.accounts.mint,
        },
        minting: minting_status(base, chain),
        feed: LiveFeed {
            hub,
            limits: Arc::new(config.websocket.clone()),
            drain_schedule: feed::DrainSchedule::within(
                drain.draining.clone(),
                config.service.shutdown_timeout,
            ),
            draining: drain.draining.clone(),
            connections: drain.streams.clone(),
        },
        cors_origins: CorsOrigins::new(config.http.cors_origins.clone()),
        operations,
    })
}

/// Sets up the authentication and the rate limit of callers. Fetches the key set before the first request, which would
/// wait for the keys; without them the service starts all the same, and health reports it.
async fn caller_auth(base: &Base) -> Result<CallerAuth, StartError> {
    let requests_per_minute =
        NonZeroU32::new(base.config.http.rate_limit_per_minute).unwrap_or(NonZeroU32::MIN);
    let auth = CallerAuth::new(authenticator(&base.config)?, requests_per_minute);
    if let Some(task) = key_set(base, &auth) {
        base.start_with_first_run(task).await;
    }
    Ok(auth)
}

fn minting_status(base: &Base, chain: &ChainHandle) -> MintingStatus {
    let config = &base.config;
    MintingStatus {
        circuit_breaker: chain.circuit_breaker.clone(),
        fee_budget: chain.fee_budget.clone(),
        estimator: Estimator::new(
            chain.clone(),
            usize::from(config.blockchain.max_batch_size),
            BaseUnits::new(config.blockchain.max_tokens_per_transaction),
        ),
        settings: Arc::new(ShownSettings {
            polling_interval_secs: config.tokenization.polling_interval.as_secs(),
            batch_size: u32::from(config.tokenization.batch_size),
            transaction_timeout: config.tokenization.transaction_timeout,
            all: config.effective.clone(),
        }),
        periodic_tasks: base.periodic.clone(),
    }
}

fn authenticator(config: &Config) -> Result<Authenticator, StartError> {
    let auth = tokens::with_development_secret(config.auth.clone(), &config.data_dir.path)?;
    Ok(tokens::authenticator(&auth)?)
}
