//! Starts the minter and the queue's workers: the part of a process that signs.

use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::base::Base;
use super::periodic_tasks::of_workers;
use super::solana::Solana;
use super::start_error::StartError;
use crate::domain::BaseUnits;
use crate::ledger::RetrySchedule;
use crate::mint::{ChainHandle, MintLimits, Minter};
use crate::queue::{FinishedJobs, ProcessRegistration, QueueContext, Workers};

/// Limit of one `MintReading` run: the minter's batches end well before. apalis considers a worker dead after 3 times this.
const JOB_LIMIT: Duration = Duration::from_secs(60);
/// Limit of one sweep; the next tick continues where it ended.
const SWEEP_LIMIT: Duration = Duration::from_secs(60);
/// Readings that may wait for the minter.
const MINT_QUEUE: usize = 10_000;

/// The running minter and workers.
pub(super) struct Minting {
    pub minter: Minter,
    pub jobs: TaskTracker,
    pub finished: FinishedJobs,
}

pub(super) fn start_minting(
    base: &Base,
    chain: &ChainHandle,
    solana: &Solana,
    process: ProcessRegistration,
) -> Result<Minting, StartError> {
    let minter = Minter::start(
        base.database.pool.clone(),
        chain.clone(),
        solana.signer.clone().ok_or(StartError::NoKeypair)?,
        mint_limits(base),
        &base.tasks.work,
    );
    let context = queue_context(base, chain, &minter);
    let finished = context.finished_jobs.clone();
    let workers = Workers::new(context, process, base.wake.clone(), &base.periodic);
    let stops = &base.tasks.stops;
    for task in of_workers(&workers) {
        let running = task.run(&base.periodic, stops.work.clone());
        base.tasks.background.spawn(running);
    }
    let jobs = TaskTracker::new();
    let (stop, cut) = (stops.work.clone(), stops.cut.clone());
    let limit = base.config.service.shutdown_timeout;
    let (pool, scan_request) = (base.database.pool.clone(), solana.scan_request);
    let circuit_breaker = chain.circuit_breaker.clone();
    // Jobs that are cut are handed back by the shutdown.
    jobs.spawn(async move {
        let allowed = async {
            // Nothing is signed before, so the jobs stay in the queue as they are.
            if let Some(request) = scan_request {
                request.until_covered(&pool).await;
                circuit_breaker.check_now();
            }
        };
        if stop.run_until_cancelled(allowed).await.is_some() {
            cut.run_until_cancelled(workers.run(stop, limit)).await;
        }
    });
    jobs.close();
    Ok(Minting {
        minter,
        jobs,
        finished,
    })
}

fn mint_limits(base: &Base) -> MintLimits {
    let blockchain = &base.config.blockchain;
    let tokenization = &base.config.tokenization;
    MintLimits {
        max_batch_readings: usize::from(blockchain.max_batch_size),
        max_base_units_per_transaction: BaseUnits::new(blockchain.max_tokens_per_transaction),
        concurrent_batches: usize::from(blockchain.concurrent_batches),
        linger: blockchain.mint_linger,
        queue: MINT_QUEUE,
        transaction_limit: tokenization.transaction_timeout,
        schedule: RetrySchedule::new(tokenization.clone()),
    }
}

fn queue_context(base: &Base, chain: &ChainHandle, minter: &Minter) -> QueueContext {
    let blockchain = &base.config.blockchain;
    let tokenization = &base.config.tokenization;
    QueueContext {
        pool: base.database.pool.clone(),
        connect: base.database.options.clone(),
        minter: minter.clone(),
        circuit_breaker: chain.circuit_breaker.clone(),
        stop: base.tasks.stops.work.clone(),
        transaction_limit: tokenization.transaction_timeout,
        job_limit: JOB_LIMIT,
        sweep_limit: SWEEP_LIMIT,
        sweep_batch_size: tokenization.batch_size,
        sweep_every_secs: tokenization.polling_interval.as_secs(),
        reading_max_age: tokenization.reading_max_age,
        concurrency: usize::from(blockchain.max_batch_size)
            * usize::from(blockchain.concurrent_batches),
        finished_jobs: FinishedJobs::default(),
    }
}
