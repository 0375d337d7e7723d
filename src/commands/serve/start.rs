//! Starts every room, from the cellar up.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drain::{Minting, RunningService, Stops};
use super::solana::{self, Solana};
use super::{StartError, open_files};
use crate::admin::{self, Settings};
use crate::api::{
    self, AppState, Authenticator, CallerAuth, ChainAccess, ConnectionDrain, CorsOrigins,
    HttpServer, LiveFeed, MintingStatus, Operations, ShownSettings,
};
use crate::canary::{self, CanarySender};
use crate::chain::{MintSigner, PriorityFees};
use crate::commands::tokens;
use crate::config::Config;
use crate::db::{self, Database, LeaderLock};
use crate::domain::{BaseUnits, Wallet};
use crate::feed::{self, retention::Retention};
use crate::ledger::{self, BindingError, Resolver, ResolverLimits, RetrySchedule};
use crate::mint::{self, ChainHandle, ChainMonitor, Estimator, FeePayerSource, MintLimits, Minter};
use crate::outbox::Wake;
use crate::queue::{self, FinishedJobs, ProcessRegistration, QueueContext, Workers};
use crate::readings::Intake;
use crate::telemetry::{self, Health, Metrics, traces};

/// Limit of one `MintReading` run: the Minter's batches end well before. The queue takes a worker for dead at 3 × this.
const JOB_LIMIT: Duration = Duration::from_secs(60);
/// Limit of one sweep; the next tick goes on where it ended.
const SWEEP_LIMIT: Duration = Duration::from_secs(60);
/// Readings that may wait for the Minter.
const MINT_QUEUE: usize = 10_000;

/// Connections that wait to be accepted, where the feed's listeners are few: callers of the API come in bursts too.
const BACKLOG_LEAST: u32 = 1_024;

/// Pause between two looks for an endpoint that answers, after a start without one.
const LOOK_FOR_CHAIN_EVERY: Duration = Duration::from_secs(2);

/// Starts the part of the service that this process is to be. Everything is checked before the first request is taken:
/// database, schema, chain, keys, mint, and that the ledger belongs to this chain. While no endpoint answers, a process that
/// signs nothing takes readings for a ledger that was bound before, and checks the chain as soon as one does.
pub async fn start(config: Config) -> Result<RunningService, StartError> {
    config.check()?;
    open_files::make_room(&config)?;
    let role = config.service.role;
    let metrics = Metrics::install().map_err(|error| StartError::Other(error.to_string()))?;
    let health = Health::default();
    let backlog = config.websocket.max_connections.max(BACKLOG_LEAST);
    let listener = listen(config.http.addr, backlog).map_err(|source| StartError::Listen {
        address: config.http.addr,
        source,
    })?;
    let transaction_limit = config.tokenization.transaction_timeout;
    let database = db::open(&config.database, transaction_limit).await?;
    let pool = database.pool.clone();
    let (solana, is_chain_checked) = match open_chain(&config, &pool).await {
        Err(StartError::Chain(error)) => {
            let recalled = solana::recall(&config, &pool).await?;
            let Some(recalled) = recalled else {
                return Err(StartError::Chain(error));
            };
            tracing::warn!(%error, "no RPC endpoint answers: readings are accepted, and the chain is checked later");
            (recalled, false)
        }
        opened => (opened?, true),
    };

    let stops = Stops::new();
    let background = TaskTracker::new();
    let work = TaskTracker::new();
    let wake = Wake::default();
    background.spawn(
        wake.clone()
            .listen(pool.clone(), health.clone(), stops.last.clone()),
    );
    init_settings(&config, &pool).await?;
    background.spawn(admin::follow_log_level(
        pool.clone(),
        wake.clone(),
        stops.last.clone(),
    ));

    hold_sequencer(&config, &database, &wake, &background, &stops.last);
    let payer = payer(&pool, solana.signer.as_ref().filter(|_| role.runs_jobs())).await?;
    let chain = ChainHandle::new(
        solana.endpoints.clone(),
        solana.accounts(config.tokenization.decimals),
        payer,
        PriorityFees::new(
            config.blockchain.priority_fee,
            config.blockchain.priority_fee_max,
        ),
    );
    let resolving = hold_resolver(&config, &database, &chain, &stops.last);
    let refusal = Arc::new(SetOnce::new());
    if is_chain_checked {
        background.spawn(resolving);
    } else {
        let checked = check_chain_later(config.clone(), pool.clone(), Arc::clone(&refusal));
        let checked = stops.last.clone().run_until_cancelled_owned(checked);
        background.spawn(async move {
            if let Some(true) = checked.await {
                resolving.await;
            }
        });
    }
    let monitor = ChainMonitor::new(
        pool.clone(),
        chain.clone(),
        health.clone(),
        transaction_limit,
    );
    // Before the first job: what the fee payer can spend is known then.
    monitor.probe().await;
    background.spawn(monitor.run(stops.last.clone()));
    let process = ProcessRegistration::register(&pool, role).await?;
    let traces = traces::start(&config.log, &pool, process.name())?;
    background.spawn(process.clone().run(
        database.options.clone(),
        pool.clone(),
        transaction_limit,
        stops.last.clone(),
    ));
    let ground = Ground {
        config: &config,
        pool: &pool,
        connect: &database.options,
        chain: &chain,
        signer: solana.signer.as_ref(),
        wake: &wake,
        stops: &stops,
        work: &work,
        background: &background,
    };
    ground.start_watching(&health);
    let minting = if role.runs_jobs() {
        Some(ground.start_minting(process.clone())?)
    } else {
        None
    };
    let connection_drain = ConnectionDrain::new();
    let operations = Operations::new(pool.clone(), health, metrics, chain.fee_budget.clone());
    let (router, api) = if role.serves_api() {
        let state = ground
            .open_api(operations.clone(), &connection_drain)
            .await?;
        if config.service.canary_enabled {
            let wallet = solana.canary_wallet(&config)?;
            ground.start_canary(state.intake.clone(), wallet)?;
        }
        (api::router(state.clone()), Some(state))
    } else {
        (api::operations_router(operations.clone()), None)
    };
    let intake = api.as_ref().map(|state| state.intake.clone());

    let address = listener
        .local_addr()
        .map_err(|error| StartError::Other(error.to_string()))?;
    let http_server = TaskTracker::new();
    http_server.spawn(api::serve(
        listener,
        HttpServer {
            router,
            operations,
            api,
            drain: connection_drain.clone(),
        },
    ));
    http_server.close();
    tracing::info!(%address, role = role.as_str(), mint = %solana.mint, "serving");
    Ok(RunningService {
        address,
        mint: solana.mint,
        refusal,
        limit: config.service.shutdown_timeout,
        stops,
        http_server,
        connection_drain,
        process,
        minting,
        intake,
        work,
        background,
        traces,
        pool,
    })
}

/// The chain, and the ledger bound to it.
async fn open_chain(config: &Config, pool: &sqlx::PgPool) -> Result<Solana, StartError> {
    // Boxed: through all their borrows the compiler does not see that they are `Send`.
    let solana = solana::open(config).boxed().await?;
    solana.bind_ledger(config, pool).boxed().await?;
    Ok(solana)
}

/// Makes up for what a start without an endpoint left out; true once it holds. Another chain, or what else would have kept the
/// process from starting, is the refusal that ends it.
async fn check_chain_later(
    config: Config,
    pool: sqlx::PgPool,
    refusal: Arc<SetOnce<String>>,
) -> bool {
    loop {
        tokio::time::sleep(LOOK_FOR_CHAIN_EVERY).await;
        match open_chain(&config, &pool).await {
            Ok(_) => {
                tracing::info!("an RPC endpoint answers, and it is on the ledger's chain");
                return true;
            }
            // The part "chain" of health tells of it.
            Err(StartError::Chain(_) | StartError::Binding(BindingError::Database(_))) => {}
            Err(refused) => {
                // Set once: nobody else does.
                let _ = refusal.set(refused.to_string());
                return false;
            }
        }
    }
}

/// Listens with room for all who come back at once after a network broke, as far as the kernel allows it
/// (net.core.somaxconn): whoever finds none tries again after 1, 3, 7 seconds. The usual 128 are full within milliseconds.
fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart does not wait for what is left of its predecessor's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// What the parts of a process are built on.
struct Ground<'a> {
    config: &'a Config,
    pool: &'a sqlx::PgPool,
    /// For connections that a room keeps for itself.
    connect: &'a sqlx::postgres::PgConnectOptions,
    chain: &'a ChainHandle,
    /// `None` in a process that signs nothing.
    signer: Option<&'a MintSigner>,
    wake: &'a Wake,
    stops: &'a Stops,
    work: &'a TaskTracker,
    background: &'a TaskTracker,
}

impl Ground<'_> {
    /// Minter and queue workers: the part that signs.
    fn start_minting(&self, process: ProcessRegistration) -> Result<Minting, StartError> {
        let config = self.config;
        let minter = Minter::start(
            self.pool.clone(),
            self.chain.clone(),
            self.signer.cloned().ok_or(StartError::NoKeypair)?,
            mint_limits(config),
            self.work,
        );
        let context = self.queue_context(&minter);
        let finished = context.finished_jobs.clone();
        let workers = Workers::new(context, process, self.wake.clone());
        let jobs = TaskTracker::new();
        let (stop, cut) = (self.stops.work.clone(), self.stops.cut.clone());
        let limit = config.service.shutdown_timeout;
        // What is cut is handed back by the drain.
        jobs.spawn(async move {
            cut.run_until_cancelled(workers.run(stop, limit)).await;
        });
        jobs.close();
        Ok(Minting {
            minter,
            jobs,
            finished,
        })
    }

    /// What health and metrics tell of the deployment and this machine.
    fn start_watching(&self, health: &Health) {
        let (pool, stop) = (self.pool, &self.stops.last);
        self.background.spawn(queue::watch_workers(
            pool.clone(),
            health.clone(),
            stop.clone(),
        ));
        self.background.spawn(telemetry::watch_disk(
            self.config.data_dir.path.clone(),
            self.config.service.disk_free_min_mb,
            health.clone(),
            stop.clone(),
        ));
        if self.config.service.canary_enabled {
            self.background.spawn(canary::watch_freshness(
                pool.clone(),
                health.clone(),
                stop.clone(),
            ));
        }
    }

    /// Offers to send the canary's readings.
    fn start_canary(&self, intake: Intake, wallet: Wallet) -> Result<(), StartError> {
        let sender = CanarySender::new(
            self.pool.clone(),
            self.chain.endpoints.clone(),
            self.chain.accounts.mint,
            intake,
            wallet,
            &self.config.tokenization,
        );
        let sender = Arc::new(sender.ok_or(StartError::NoCanaryAmount)?);
        self.background.spawn(db::run_as_leader(
            self.connect.clone(),
            LeaderLock::Canary,
            self.stops.work.clone(),
            move |held| {
                let sender = Arc::clone(&sender);
                async move { sender.run(held).await }
            },
        ));
        Ok(())
    }

    /// Intake and feed, and what the handlers of the API work with.
    async fn open_api(
        &self,
        operations: Operations,
        drain: &ConnectionDrain,
    ) -> Result<AppState, StartError> {
        let (config, pool) = (self.config, self.pool);
        let authenticator = authenticator(config)?;
        if let Some(key_set) = authenticator.key_set() {
            // Before the first request, which would wait for them. Without them the service starts all the same, and says so.
            key_set.fetch(&operations.health).await;
            let (health, stop) = (operations.health.clone(), self.stops.last.clone());
            self.background.spawn(key_set.keep_fetching(health, stop));
        }
        let hub = feed::Hub::start(
            pool.clone(),
            self.wake.clone(),
            config.tokenization.transaction_timeout,
            self.background,
            self.stops.last.clone(),
        )
        .await?;
        let intake = Intake::start(
            pool.clone(),
            &config.intake,
            &config.tokenization,
            &config.blockchain,
            self.work,
        );
        let requests_per_minute =
            NonZeroU32::new(config.http.rate_limit_per_minute).unwrap_or(NonZeroU32::MIN);
        Ok(AppState {
            pool: pool.clone(),
            auth: CallerAuth::new(authenticator, requests_per_minute),
            intake,
            chain: ChainAccess {
                endpoints: self.chain.endpoints.clone(),
                mint: self.chain.accounts.mint,
            },
            minting: self.minting_status(),
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

    fn minting_status(&self) -> MintingStatus {
        let config = self.config;
        MintingStatus {
            circuit_breaker: self.chain.circuit_breaker.clone(),
            fee_budget: self.chain.fee_budget.clone(),
            estimator: Estimator::new(
                self.chain.clone(),
                usize::from(config.blockchain.max_batch_size),
                BaseUnits::new(config.blockchain.max_tokens_per_transaction),
            ),
            settings: Arc::new(ShownSettings {
                polling_interval_secs: config.tokenization.polling_interval.as_secs(),
                batch_size: u32::from(config.tokenization.batch_size),
                all: config.effective.clone(),
            }),
        }
    }

    fn queue_context(&self, minter: &Minter) -> QueueContext {
        let config = self.config;
        QueueContext {
            pool: self.pool.clone(),
            connect: self.connect.clone(),
            minter: minter.clone(),
            circuit_breaker: self.chain.circuit_breaker.clone(),
            stop: self.stops.work.clone(),
            transaction_limit: config.tokenization.transaction_timeout,
            job_limit: JOB_LIMIT,
            sweep_limit: SWEEP_LIMIT,
            sweep_batch_size: config.tokenization.batch_size,
            sweep_every_secs: config.tokenization.polling_interval.as_secs(),
            reading_max_age: config.tokenization.reading_max_age,
            concurrency: usize::from(config.blockchain.max_batch_size)
                * usize::from(config.blockchain.concurrent_batches),
            finished_jobs: FinishedJobs::default(),
        }
    }
}

/// The first start on a database fills the row that all processes obey.
async fn init_settings(config: &Config, pool: &sqlx::PgPool) -> Result<(), StartError> {
    let configured = Settings {
        auto_mint_enabled: config.tokenization.auto_mint_enabled,
        auto_mint_percentage: i16::from(config.tokenization.auto_mint_percentage),
    };
    Settings::init(pool, configured).await?;
    Ok(())
}

/// Who pays. A process that mints knows it by its key and tells the others, whose own keys, if they have any, pay nothing.
async fn payer(
    pool: &sqlx::PgPool,
    minting: Option<&MintSigner>,
) -> Result<FeePayerSource, StartError> {
    let Some(signer) = minting else {
        return Ok(FeePayerSource::Ledger(ledger::fee_payer(pool).await?));
    };
    let fee_payer = signer.fee_payer();
    ledger::store_fee_payer(pool, &fee_payer).await?;
    Ok(FeePayerSource::OwnKey(fee_payer))
}

fn hold_sequencer(
    config: &Config,
    database: &Database,
    wake: &Wake,
    background: &TaskTracker,
    stop: &CancellationToken,
) {
    let (pool, wake) = (database.pool.clone(), wake.clone());
    let retention = Retention::new(config.feed.retention);
    let limit = config.tokenization.transaction_timeout;
    background.spawn(db::run_as_leader(
        database.options.clone(),
        LeaderLock::Sequencer,
        stop.clone(),
        move |held| {
            let numbering =
                feed::sequencer::run(pool.clone(), wake.clone(), retention, limit, held.clone());
            // Whoever numbers also drops what is too old.
            let dropping = feed::retention::run(pool.clone(), retention, limit, held);
            async move {
                tokio::join!(numbering, dropping);
            }
        },
    ));
}

fn hold_resolver(
    config: &Config,
    database: &Database,
    chain: &ChainHandle,
    stop: &CancellationToken,
) -> BoxFuture<'static, ()> {
    let limit = config.tokenization.transaction_timeout;
    let resolver = Arc::new(Resolver::new(
        database.pool.clone(),
        chain.endpoints.clone(),
        chain.accounts.mint,
        chain.accounts.authority,
        ResolverLimits {
            quarantine_after: config.ledger.quarantine_after,
            transaction_limit: limit,
            schedule: RetrySchedule::new(config.tokenization.clone()),
        },
    ));
    let (pool, circuit_breaker) = (database.pool.clone(), chain.circuit_breaker.clone());
    let resolving = db::run_as_leader(
        database.options.clone(),
        LeaderLock::Resolver,
        stop.clone(),
        move |held| {
            let resolver = Arc::clone(&resolver);
            // Whoever settles also speaks for the deployment.
            let announcing =
                mint::announce(pool.clone(), circuit_breaker.clone(), limit, held.clone());
            async move {
                tokio::join!(resolver.run(held), announcing);
            }
        },
    );
    resolving.boxed()
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
        transaction_limit: config.tokenization.transaction_timeout,
        schedule: RetrySchedule::new(config.tokenization.clone()),
    }
}

fn authenticator(config: &Config) -> Result<Authenticator, StartError> {
    tokens::with_development_secret(config.auth.clone(), &config.data_dir.path)
        .and_then(|auth| tokens::authenticator(&auth))
        .map_err(|error| StartError::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_comes_in_a_crowd_is_let_in_before_anybody_is_accepted() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let listener = listen("127.0.0.1:0".parse().unwrap(), BACKLOG_LEAST).unwrap();
        let address = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..300 {
            let client = timeout(PATIENCE, TcpStream::connect(address)).await;
            crowd.push(client.expect("there is room").unwrap());
        }
    }
}
