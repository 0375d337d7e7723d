//! Starts every room, from the cellar up.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drain::{RunningService, Stops};
use super::{StartError, database, solana};
use crate::admin::{Settings, SettingsWatch};
use crate::api::{self, AppState, Authenticator, RateLimiter, Services};
use crate::chain;
use crate::commands::tokens;
use crate::config::Config;
use crate::domain::BaseUnits;
use crate::feed;
use crate::holder::{self, HolderLock};
use crate::ledger::{self, Resolver, ResolverLimits, RetrySchedule};
use crate::mint::{Estimator, MintLimits, Minter};
use crate::outbox::Wake;
use crate::queue::{ProcessLock, QueueContext, Workers};
use crate::readings::Intake;
use crate::telemetry::{Health, Metrics};

/// Limit of one `MintReading` run: the Minter's batches end well before. The queue takes a worker for dead at 3 × this.
const JOB_LIMIT: Duration = Duration::from_secs(60);
/// Limit of one sweep; the next tick goes on where it ended.
const SWEEP_LIMIT: Duration = Duration::from_secs(60);
/// Readings that may wait for the Minter.
const MINT_QUEUE: usize = 10_000;

/// Starts the service. Everything is checked before the first request is taken: database, schema, chain, keys, mint, and
/// that the ledger belongs to this chain.
pub async fn start(config: Config) -> Result<RunningService, StartError> {
    config.check()?;
    let metrics = Metrics::install().map_err(|error| StartError::Other(error.to_string()))?;
    let health = Health::default();
    let listener = TcpListener::bind(config.http.addr)
        .await
        .map_err(|source| StartError::Listen {
            address: config.http.addr,
            source,
        })?;
    let database = database::open(&config.database).await?;
    let solana = solana::open(&config).await?;
    let pool = database.pool.clone();
    ledger::bind(
        &pool,
        &solana.endpoints,
        &ledger::ChainBinding {
            genesis_hash: solana.genesis_hash.clone(),
            mint: solana.mint,
            authority: solana.signer.authority(),
            decimals: config.tokenization.decimals,
        },
    )
    .await?;

    let stops = Stops::new();
    let background = TaskTracker::new();
    let work = TaskTracker::new();
    let wake = Wake::default();
    background.spawn(wake.clone().listen(pool.clone(), stops.last.clone()));
    let settings = settings(&config, &pool, &wake, &background, &stops.last).await?;

    hold_sequencer(&database, &wake, &background, &stops.last);
    hold_resolver(&config, &database, &solana, &background, &stops.last);
    background.spawn(chain::watch(
        solana.endpoints.clone(),
        solana.signer.fee_payer(),
        health.clone(),
        stops.last.clone(),
    ));
    let feed =
        feed::Hub::start(pool.clone(), wake.clone(), &background, stops.last.clone()).await?;
    let minter = Minter::start(
        pool.clone(),
        solana.endpoints.clone(),
        solana.signer.clone(),
        solana.mint,
        mint_limits(&config),
        &work,
    );
    let process = ProcessLock::enter(&pool).await?;
    background.spawn(process.clone().keep(
        database.options.clone(),
        pool.clone(),
        stops.last.clone(),
    ));
    let workers = Workers::new(
        queue_context(&config, &database, &minter, &settings, &stops.work),
        process,
        wake.clone(),
    );
    let jobs = TaskTracker::new();
    jobs.spawn(workers.run(stops.work.clone(), config.service.shutdown_timeout));
    jobs.close();
    let intake = Intake::start(
        pool.clone(),
        &config.intake,
        &config.tokenization,
        &config.blockchain,
        &work,
    );

    let address = listener
        .local_addr()
        .map_err(|error| StartError::Other(error.to_string()))?;
    let state = AppState::new(Services {
        pool: pool.clone(),
        authenticator: authenticator(&config)?,
        rate_limiter: RateLimiter::per_minute(
            NonZeroU32::new(config.http.rate_limit_per_minute).unwrap_or(NonZeroU32::MIN),
        ),
        settings,
        health,
        metrics,
        cors_origins: config.http.cors_origins.clone(),
        polling_interval_secs: config.tokenization.polling_interval.as_secs(),
        batch_size: u32::from(config.tokenization.batch_size),
        configuration: config.effective.clone(),
        draining: stops.requests.clone(),
        intake: intake.clone(),
        endpoints: solana.endpoints.clone(),
        mint: solana.mint,
        estimator: Estimator::new(
            solana.endpoints.clone(),
            solana.mint,
            usize::from(config.blockchain.max_batch_size),
            BaseUnits::new(config.blockchain.max_tokens_per_transaction),
            solana.signer.has_separate_fee_payer(),
        ),
        feed,
        websocket: config.websocket.clone(),
        connections: background.clone(),
    });
    let requests = TaskTracker::new();
    requests.spawn(api::serve(
        listener,
        api::router(state.clone()),
        state,
        config.service.shutdown_timeout,
    ));
    requests.close();
    tracing::info!(%address, mint = %solana.mint, "serving");
    Ok(RunningService {
        address,
        mint: solana.mint,
        limit: config.service.shutdown_timeout,
        stops,
        requests,
        jobs,
        intake,
        minter,
        work,
        background,
        pool,
    })
}

async fn settings(
    config: &Config,
    pool: &sqlx::PgPool,
    wake: &Wake,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Result<SettingsWatch, StartError> {
    let configured = Settings {
        auto_mint_enabled: config.tokenization.auto_mint_enabled,
        auto_mint_percentage: i16::from(config.tokenization.auto_mint_percentage),
    };
    let settings = SettingsWatch::new(Settings::load_or_init(pool, configured).await?);
    background.spawn(
        settings
            .clone()
            .follow(pool.clone(), wake.clone(), stop.clone()),
    );
    Ok(settings)
}

fn hold_sequencer(
    database: &database::Database,
    wake: &Wake,
    background: &TaskTracker,
    stop: &CancellationToken,
) {
    let (pool, wake) = (database.pool.clone(), wake.clone());
    background.spawn(holder::hold(
        database.options.clone(),
        HolderLock::Sequencer,
        stop.clone(),
        move |held| feed::sequencer::run(pool.clone(), wake.clone(), held),
    ));
}

fn hold_resolver(
    config: &Config,
    database: &database::Database,
    solana: &solana::Solana,
    background: &TaskTracker,
    stop: &CancellationToken,
) {
    let resolver = Arc::new(Resolver::new(
        database.pool.clone(),
        solana.endpoints.clone(),
        solana.mint,
        solana.signer.authority(),
        ResolverLimits {
            quarantine_after: config.ledger.quarantine_after,
            schedule: RetrySchedule::new(config.tokenization.clone()),
        },
    ));
    background.spawn(holder::hold(
        database.options.clone(),
        HolderLock::Resolver,
        stop.clone(),
        move |held| {
            let resolver = Arc::clone(&resolver);
            async move { resolver.run(held).await }
        },
    ));
}

fn mint_limits(config: &Config) -> MintLimits {
    MintLimits {
        max_batch_readings: usize::from(config.blockchain.max_batch_size),
        max_base_units_per_transaction: BaseUnits::new(
            config.blockchain.max_tokens_per_transaction,
        ),
        concurrent_batches: usize::from(config.blockchain.concurrent_batches),
        linger: config.blockchain.mint_linger,
        queue: MINT_QUEUE,
        send_limit: config.tokenization.transaction_timeout,
        schedule: RetrySchedule::new(config.tokenization.clone()),
    }
}

fn queue_context(
    config: &Config,
    database: &database::Database,
    minter: &Minter,
    settings: &SettingsWatch,
    draining: &CancellationToken,
) -> QueueContext {
    QueueContext {
        pool: database.pool.clone(),
        connect: database.options.clone(),
        draining: draining.clone(),
        minter: minter.clone(),
        settings: settings.clone(),
        job_limit: JOB_LIMIT,
        sweep_limit: SWEEP_LIMIT,
        sweep_batch_size: u32::from(config.tokenization.batch_size),
        sweep_every_secs: config.tokenization.polling_interval.as_secs(),
        reading_max_age: config.tokenization.reading_max_age,
        concurrency: usize::from(config.blockchain.max_batch_size)
            * usize::from(config.blockchain.concurrent_batches),
    }
}

fn authenticator(config: &Config) -> Result<Authenticator, StartError> {
    tokens::with_development_secret(config.auth.clone(), &config.data_dir.path)
        .and_then(|auth| tokens::authenticator(&auth))
        .map_err(|error| StartError::Other(error.to_string()))
}
