//! Builds the workers and drains them.

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{EventListenerExt, Monitor, WorkerBuilder, WorkerBuilderExt};
use apalis_cron::CronScheduler;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::heartbeat::Heartbeats;
use super::mint_reading::{MintReading, mint_reading};
use super::registration::ProcessRegistration;
use super::source::{HEARTBEAT_EVERY, RESTART_DELAY, source};
use super::sweep::{EverySecs, SweepUnminted, enqueue_sweep, sweep_unminted};
use super::tally::JobTally;
use super::trigger_batch::{TriggerBatch, trigger_batch};
use crate::chain::{Cause, CircuitBreaker};
use crate::mint::Minter;
use crate::outbox::{JobKind, Wake};

/// What the handlers work with.
pub struct QueueContext {
    pub pool: PgPool,
    /// For connections that hold a lock.
    pub connect: PgConnectOptions,
    pub minter: Minter,
    /// Whether the chain lets anything be minted.
    pub circuit_breaker: CircuitBreaker,
    /// Cancelled when this process drains: handlers come to an end, and nobody waits for the circuit breaker any more.
    pub stop: CancellationToken,
    /// Limit of one transaction of the database.
    pub transaction_limit: Duration,
    /// Limit of one `MintReading` run.
    pub job_limit: Duration,
    /// Limit of one sweep.
    pub sweep_limit: Duration,
    /// Readings that a batch claims per step.
    pub sweep_batch_size: u16,
    pub sweep_every_secs: u64,
    pub reading_max_age: Duration,
    /// `MintReading` jobs that run at once: enough for all batches in flight to be full.
    pub concurrency: usize,
    /// For the last line of the log.
    pub tally: JobTally,
}

/// How long a job holds its place while the circuit breaker is open. The places are all taken then, so the backlog stays where it
/// is, due and untouched, and goes on the moment the circuit breaker closes; and not for long, so that another process, whose circuit breaker
/// may be closed, gets the job.
const HOLD: Duration = Duration::from_secs(10);

impl QueueContext {
    /// Waits a little while the circuit breaker is open; then the reason.
    pub async fn until_minting_is_worth_trying(&self) -> Result<(), Cause> {
        tokio::select! {
            closed = self.circuit_breaker.until_closed(HOLD) => closed,
            () = self.stop.cancelled() => self.circuit_breaker.view().allows_minting(),
        }
    }

    /// Pages of a batch that are in the Minter at once: together no more than fill all batches in flight.
    pub fn pages_at_once(&self) -> usize {
        (self.concurrency / usize::from(self.sweep_batch_size.max(1))).max(1)
    }
}

/// The queue's workers in this process.
pub struct Workers {
    context: Arc<QueueContext>,
    process: ProcessRegistration,
    wake: Wake,
    heartbeats: Heartbeats,
}

impl Workers {
    pub fn new(context: QueueContext, process: ProcessRegistration, wake: Wake) -> Workers {
        Workers {
            context: Arc::new(context),
            process,
            wake,
            heartbeats: Heartbeats::default(),
        }
    }

    /// Runs until told to stop, then lets running handlers finish within `drain_limit`. Jobs that are still claimed then are
    /// handed back by [`ProcessRegistration::deregister`].
    pub async fn run(self, stop: CancellationToken, drain_limit: Duration) {
        while !stop.is_cancelled() {
            let told = stop.clone();
            let running = self.monitor(drain_limit).run_with_signal(async move {
                told.cancelled().await;
                Ok(())
            });
            tokio::select! {
                ended = running => if let Err(error) = ended {
                    tracing::warn!(%error, "the queue's workers ended");
                },
                // Their jobs are handed back under the names of those that come next.
                worker = self.until_one_is_stuck(&stop) => {
                    tracing::error!(worker, "a queue worker is stuck, most likely on a silent session of the database; starting all anew");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RESTART_DELAY) => {}
            }
        }
    }

    /// Never while it drains: then they beat no more, and have a limit.
    async fn until_one_is_stuck(&self, stop: &CancellationToken) -> &'static str {
        let context = &self.context;
        // A worker beats between fetches, so not while its places are taken by jobs that run, wait for the circuit breaker, and are
        // put off; and a beat is a transaction.
        let healthy =
            HOLD + context.job_limit.max(context.sweep_limit) + 2 * context.transaction_limit;
        let stuck = self.heartbeats.until_silent_for(HEARTBEAT_EVERY + healthy);
        match stop.run_until_cancelled(stuck).await {
            Some(worker) => worker,
            None => std::future::pending().await,
        }
    }

    fn monitor(&self, drain_limit: Duration) -> Monitor {
        let minting = {
            let (context, process, wake) = self.parts();
            let heartbeats = self.heartbeats.clone();
            move |restart: usize| {
                let (kind, jobs) = (JobKind::MintReading, context.concurrency);
                WorkerBuilder::new(process.worker_name("mint"))
                    .backend(source::<MintReading>(
                        &context.pool,
                        &wake,
                        kind,
                        jobs,
                        restart,
                    ))
                    .data(Arc::clone(&context))
                    .concurrency(jobs)
                    .on_event(heartbeats.listener("mint"))
                    .build(mint_reading)
            }
        };
        let sweeping = {
            let (context, process, wake) = self.parts();
            let heartbeats = self.heartbeats.clone();
            move |restart: usize| {
                let kind = JobKind::SweepUnminted;
                WorkerBuilder::new(process.worker_name("sweep"))
                    .backend(source::<SweepUnminted>(
                        &context.pool,
                        &wake,
                        kind,
                        1,
                        restart,
                    ))
                    .data(Arc::clone(&context))
                    .concurrency(1)
                    .on_event(heartbeats.listener("sweep"))
                    .build(sweep_unminted)
            }
        };
        let triggering = {
            let (context, process, wake) = self.parts();
            let heartbeats = self.heartbeats.clone();
            move |restart: usize| {
                let kind = JobKind::TriggerBatch;
                WorkerBuilder::new(process.worker_name("trigger"))
                    .backend(source::<TriggerBatch>(
                        &context.pool,
                        &wake,
                        kind,
                        1,
                        restart,
                    ))
                    .data(Arc::clone(&context))
                    .concurrency(1)
                    .on_event(heartbeats.listener("trigger"))
                    .build(trigger_batch)
            }
        };
        let ticking = {
            let (context, process, _) = self.parts();
            move |_| {
                WorkerBuilder::new(process.worker_name("tick"))
                    .backend(CronScheduler::new(EverySecs(context.sweep_every_secs)))
                    .data(Arc::clone(&context))
                    .build(enqueue_sweep)
            }
        };
        Monitor::new()
            .register(minting)
            .register(sweeping)
            .register(triggering)
            .register(ticking)
            .shutdown_timeout(drain_limit)
            // The database may be away for a while: the worker comes back, under a new name.
            .should_restart(|_, error| {
                tracing::warn!(%error, "a queue worker ended; starting it again");
                true
            })
    }

    fn parts(&self) -> (Arc<QueueContext>, ProcessRegistration, Wake) {
        (
            Arc::clone(&self.context),
            self.process.clone(),
            self.wake.clone(),
        )
    }
}
