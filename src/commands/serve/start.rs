//! Starts every part of the service, in the order in which they depend on each other.

use super::base::Base;
use super::drain::RunningService;
use super::http::{open_api, operations, start_http};
use super::leader_tasks::{resolver, start_canary, start_sequencer};
use super::listening_socket::listen;
use super::minting::start_minting;
use super::open_chain::{chain_handle, open_or_recall, run_on_checked_chain};
use super::open_files;
use super::periodic_tasks::{chain_monitor, of_every_process};
use super::start_error::StartError;
use crate::admin::AutoMintSettings;
use crate::api::ConnectionDrain;
use crate::config::Config;
use crate::queue::ProcessRegistration;
use crate::telemetry::{Metrics, traces};

/// Starts the part of the service that this process's role names. Everything is checked before the first request is accepted:
/// database, schema, chain, keys, mint, and that the ledger belongs to this chain. While no endpoint answers, a process that
/// signs nothing accepts readings for a ledger that was bound before, and checks the chain as soon as one does.
pub async fn start(config: Config) -> Result<RunningService, StartError> {
    config.check()?;
    open_files::make_room(&config)?;
    let role = config.service.role;
    let metrics = Metrics::install()?;
    let listener = listen(&config)?;
    let base = Base::open(config, metrics).await?;
    let pool = base.database.pool.clone();
    let opened = open_or_recall(&base).await?;
    let solana = &opened.solana;

    start_listener(&base);
    init_settings(&base).await?;
    start_sequencer(&base);
    let chain = chain_handle(&base, solana).await?;
    let failed_check = run_on_checked_chain(&base, &opened, resolver(&base, &chain));
    base.start_with_first_run(chain_monitor(&base, &chain))
        .await;
    let process = register_process(&base).await?;
    let traces = traces::start(&base.config.log, &pool, process.name())?;
    for task in of_every_process(&base, &chain, &process) {
        base.start_periodic(task);
    }
    let minting = if role.runs_jobs() {
        Some(start_minting(&base, &chain, solana, process.clone())?)
    } else {
        None
    };
    let operations = operations(&base, &chain);
    let drain = ConnectionDrain::new();
    let api = if role.serves_api() {
        let operations = operations.clone();
        Some(open_api(&base, &chain, operations, &drain).await?)
    } else {
        None
    };
    let intake = api.as_ref().map(|state| state.intake.clone());
    if let Some(intake) = intake
        .clone()
        .filter(|_| base.config.service.canary_enabled)
    {
        start_canary(&base, &chain, solana, intake)?;
    }
    let http = start_http(operations, listener, drain, api)?;
    tracing::info!(address = %http.address, role = role.as_str(), mint = %solana.mint, "serving");
    Ok(RunningService {
        mint: solana.mint,
        failed_check,
        limit: base.config.service.shutdown_timeout,
        tasks: base.tasks,
        http,
        process,
        minting,
        intake,
        traces,
        pool,
    })
}

/// Receives the database's notifications.
fn start_listener(base: &Base) {
    let (pool, health) = (base.database.pool.clone(), base.health.clone());
    base.spawn_background(|stop| base.wake.clone().listen(pool, health, stop));
}

/// The first start on a database fills the row that all processes obey.
async fn init_settings(base: &Base) -> Result<(), StartError> {
    let tokenization = &base.config.tokenization;
    let configured = AutoMintSettings {
        auto_mint_enabled: tokenization.auto_mint_enabled,
        auto_mint_percentage: i16::from(tokenization.auto_mint_percentage),
    };
    AutoMintSettings::init(&base.database.pool, configured).await?;
    Ok(())
}

/// Registers this process, and keeps the lock that marks it alive.
async fn register_process(base: &Base) -> Result<ProcessRegistration, StartError> {
    let (pool, options) = (&base.database.pool, &base.database.options);
    let process = ProcessRegistration::register(pool, base.config.service.role).await?;
    let registered = process.clone();
    base.spawn_background(|stop| registered.keep_lock(options.clone(), stop));
    Ok(process)
}
