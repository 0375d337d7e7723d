//! Builds the workers and drains them.

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{Monitor, WorkerBuilder, WorkerBuilderExt};
use apalis_core::backend::ext::poll_strategy::PollWith;
use apalis_cron::CronScheduler;
use apalis_postgres::{Config, PostgresStorage};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::mint_reading::{MintReading, mint_reading};
use super::process::ProcessLock;
use super::sweep::{EverySecs, SweepUnminted, enqueue_sweep, sweep_unminted};
use super::trigger_batch::{TriggerBatch, trigger_batch};
use super::wake_up::WakeUp;
use crate::admin::SettingsWatch;
use crate::mint::Minter;
use crate::outbox::{JobKind, Wake};

/// What the handlers work with.
pub struct QueueContext {
    pub pool: PgPool,
    /// For connections that hold a lock.
    pub connect: PgConnectOptions,
    /// Cancelled when this process drains: handlers come to an end.
    pub draining: CancellationToken,
    pub minter: Minter,
    pub settings: SettingsWatch,
    /// Limit of one `MintReading` run.
    pub job_limit: Duration,
    /// Limit of one sweep.
    pub sweep_limit: Duration,
    /// Readings that a batch claims per step.
    pub sweep_batch_size: u32,
    pub sweep_every_secs: u64,
    pub reading_max_age: Duration,
    /// `MintReading` jobs that run at once: enough for all batches in flight to be full.
    pub concurrency: usize,
}

impl QueueContext {
    /// Pages of a batch that are in the Minter at once: together no more than fill all batches in flight.
    pub fn pages_at_once(&self) -> usize {
        (self.concurrency / self.sweep_batch_size.max(1) as usize).max(1)
    }
}

/// Due retries and jobs that were handed back raise no notification: the poll finds them.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// A worker is taken for dead after this many missed heartbeats: 180 s, three times a handler's hard limit. Dead
/// *processes* are noticed within seconds by their lock.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
const MISSED_HEARTBEATS: usize = 12;
/// How long a worker that ended with an error (the database went away) waits before it starts again.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// The queue's workers in this process.
pub struct Workers {
    context: Arc<QueueContext>,
    process: ProcessLock,
    wake: Wake,
}

impl Workers {
    pub fn new(context: QueueContext, process: ProcessLock, wake: Wake) -> Workers {
        Workers {
            context: Arc::new(context),
            process,
            wake,
        }
    }

    /// Runs until told to stop, then lets running handlers finish within `drain_limit` and hands back the rest.
    pub async fn run(self, stop: CancellationToken, drain_limit: Duration) {
        let pool = self.context.pool.clone();
        let process = self.process.clone();
        while !stop.is_cancelled() {
            let told = stop.clone();
            let ended = self
                .monitor(drain_limit)
                .run_with_signal(async move {
                    told.cancelled().await;
                    Ok(())
                })
                .await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the queue's workers ended");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RESTART_DELAY) => {}
            }
        }
        match process.leave(&pool).await {
            Ok(jobs) => tracing::info!(jobs, "queue drained; jobs handed back"),
            Err(error) => tracing::warn!(
                %error,
                "claimed jobs could not be handed back; other processes do it within seconds"
            ),
        }
    }

    fn monitor(&self, drain_limit: Duration) -> Monitor {
        let minting = {
            let (context, process, wake) = (
                Arc::clone(&self.context),
                self.process.clone(),
                self.wake.clone(),
            );
            move |restart: usize| {
                let storage = PostgresStorage::<MintReading>::new(&context.pool)
                    .with_config(config(JobKind::MintReading, context.concurrency));
                WorkerBuilder::new(process.worker_name("mint", restart))
                    .backend(PollWith::new(storage, WakeUp::new(wake.jobs(), POLL_EVERY)))
                    .data(Arc::clone(&context))
                    .concurrency(context.concurrency)
                    .build(mint_reading)
            }
        };
        let sweeping = {
            let (context, process, wake) = (
                Arc::clone(&self.context),
                self.process.clone(),
                self.wake.clone(),
            );
            move |restart: usize| {
                let storage = PostgresStorage::<SweepUnminted>::new(&context.pool)
                    .with_config(config(JobKind::SweepUnminted, 1));
                WorkerBuilder::new(process.worker_name("sweep", restart))
                    .backend(PollWith::new(storage, WakeUp::new(wake.jobs(), POLL_EVERY)))
                    .data(Arc::clone(&context))
                    .concurrency(1)
                    .build(sweep_unminted)
            }
        };
        let triggering = {
            let (context, process, wake) = (
                Arc::clone(&self.context),
                self.process.clone(),
                self.wake.clone(),
            );
            move |restart: usize| {
                let storage = PostgresStorage::<TriggerBatch>::new(&context.pool)
                    .with_config(config(JobKind::TriggerBatch, 1));
                WorkerBuilder::new(process.worker_name("trigger", restart))
                    .backend(PollWith::new(storage, WakeUp::new(wake.jobs(), POLL_EVERY)))
                    .data(Arc::clone(&context))
                    .concurrency(1)
                    .build(trigger_batch)
            }
        };
        let ticking = {
            let (context, process) = (Arc::clone(&self.context), self.process.clone());
            move |restart: usize| {
                WorkerBuilder::new(process.worker_name("tick", restart))
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
}

fn config(kind: JobKind, batch: usize) -> Config {
    Config::default()
        .queue(kind.as_str())
        // Never above the concurrency: acknowledgements wait while the fetch buffer is not empty.
        .batch_size(batch)
        .heartbeat_interval(HEARTBEAT_EVERY)
        .missed_heartbeats(MISSED_HEARTBEATS)
        // Also what makes a finished job acknowledged at all.
        .persist_results(true)
}
