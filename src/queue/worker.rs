//! Builds the worker of one kind of job.

use std::sync::Arc;

use apalis::prelude::{EventListenerExt, Monitor, WorkerBuilder, WorkerBuilderExt};

use super::handle::{Handle, handle};
use super::handler_context::QueueContext;
use super::heartbeat::Heartbeats;
use super::process_registration::ProcessRegistration;
use super::source::source;
use crate::outbox::Wake;
use crate::periodic::RunCounter;

/// The parts that all workers of a process share.
#[derive(Clone)]
pub(super) struct WorkerParts {
    pub context: Arc<QueueContext>,
    pub process: ProcessRegistration,
    pub wake: Wake,
    pub heartbeats: Heartbeats,
    /// Of the task "queue poll".
    pub polls: RunCounter,
}

/// Registers the worker of a kind of job. The monitor builds it again, under a new name, after each error.
pub(super) fn register_worker<J: Handle>(parts: &WorkerParts, monitor: Monitor) -> Monitor {
    let parts = parts.clone();
    monitor.register(move |restart: usize| {
        let concurrency = J::concurrency(&parts.context);
        WorkerBuilder::new(parts.process.worker_name(J::WORKER))
            .backend(source::<J>(
                &parts.context.pool,
                &parts.wake,
                &parts.polls,
                concurrency,
                restart,
            ))
            .data(Arc::clone(&parts.context))
            .concurrency(concurrency)
            .on_event(parts.heartbeats.listener(J::WORKER))
            .build(handle::<J>)
    })
}
