//! Runs the queue's workers in this process: builds them, restarts them, drains them.

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{Monitor, WorkerBuilder};
use apalis_cron::CronScheduler;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handler_context::{CIRCUIT_WAIT, QueueContext};
use super::heartbeat::Heartbeats;
use super::kinds::KINDS;
use super::process_registration::ProcessRegistration;
use super::source::{HEARTBEAT_EVERY, POLL_TIMING, RESTART_DELAY};
use super::sweep_clock::{EverySecs, enqueue_sweep};
use super::worker::WorkerParts;
use crate::outbox::Wake;
use crate::periodic::{PeriodicTask, RunCounter, TaskList, Timing};

/// The queue's workers in this process.
pub struct Workers {
    parts: WorkerParts,
    /// Of the task "sweep".
    sweep_ticks: RunCounter,
    report_silent: mpsc::Sender<&'static str>,
    silent: mpsc::Receiver<&'static str>,
}

impl Workers {
    /// Adds to the list what apalis runs on a period: the clock of the sweep, whose limit is that of one sweep, and the polls.
    pub fn new(
        context: QueueContext,
        process: ProcessRegistration,
        wake: Wake,
        list: &TaskList,
    ) -> Workers {
        let sweep_every = Duration::from_secs(context.sweep_every_secs);
        let sweep = Timing::new("sweep", sweep_every).with_limit(context.sweep_limit);
        let (report_silent, silent) = mpsc::channel(1);
        Workers {
            sweep_ticks: list.add(sweep),
            parts: WorkerParts {
                context: Arc::new(context),
                process,
                wake,
                heartbeats: Heartbeats::default(),
                polls: list.add(POLL_TIMING),
            },
            report_silent,
            silent,
        }
    }

    /// Checks whether a worker is stuck. Must be stopped when a drain begins: workers send no heartbeats then, and the drain has
    /// its own limit.
    pub fn heartbeat_task(&self) -> PeriodicTask {
        let context = &self.parts.context;
        // A worker sends heartbeats between fetches, so not while its places are taken by jobs that run, wait for the circuit
        // breaker, and are deferred. The heartbeat itself is a transaction.
        let healthy = CIRCUIT_WAIT
            + context.job_limit.max(context.sweep_limit)
            + 2 * context.transaction_limit;
        let limit = HEARTBEAT_EVERY + healthy;
        let heartbeats = &self.parts.heartbeats;
        heartbeats.check_task(limit, self.report_silent.clone())
    }

    /// Runs until `stop`, then lets running handlers finish within `drain_limit`. Jobs that are still claimed then are handed
    /// back by [`ProcessRegistration::deregister`].
    pub async fn run(mut self, stop: CancellationToken, drain_limit: Duration) {
        while !stop.is_cancelled() {
            // Reported of workers that have ended.
            while self.silent.try_recv().is_ok() {}
            let stopping = stop.clone();
            let running = self.monitor(drain_limit).run_with_signal(async move {
                stopping.cancelled().await;
                Ok(())
            });
            tokio::select! {
                ended = running => if let Err(error) = ended {
                    tracing::warn!(%error, "the queue's workers ended");
                },
                // Their jobs are handed back once workers with new names run.
                worker = self.until_one_is_stuck(&stop) => {
                    tracing::error!(worker, "a queue worker is stuck, most likely on a database session that does not answer; restarting all workers");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RESTART_DELAY) => {}
            }
        }
    }

    /// Never returns during a drain.
    async fn until_one_is_stuck(&mut self, stop: &CancellationToken) -> &'static str {
        match stop.run_until_cancelled(self.silent.recv()).await.flatten() {
            Some(worker) => worker,
            None => std::future::pending().await,
        }
    }

    fn monitor(&self, drain_limit: Duration) -> Monitor {
        let mut monitor = Monitor::new();
        for kind in KINDS {
            monitor = (kind.register_worker)(&self.parts, monitor);
        }
        let WorkerParts {
            context, process, ..
        } = self.parts.clone();
        let sweep_ticks = self.sweep_ticks.clone();
        monitor
            .register(move |_| {
                WorkerBuilder::new(process.worker_name("tick"))
                    .backend(CronScheduler::new(EverySecs(context.sweep_every_secs)))
                    .data(Arc::clone(&context))
                    .data(sweep_ticks.clone())
                    .build(enqueue_sweep)
            })
            .shutdown_timeout(drain_limit)
            // The database may be unavailable for a while: the worker is restarted under a new name.
            .should_restart(|_, error| {
                tracing::warn!(%error, "a queue worker ended; restarting it");
                true
            })
    }
}
