//! The kinds of job that this service runs. To add one, add a line to [`KINDS`].

use apalis::prelude::Monitor;

use super::handle::Handle;
use super::worker::{WorkerParts, register_worker};
use crate::outbox::{MintReading, SweepUnminted, TriggerBatch};

pub(super) const KINDS: [JobKind; 3] = [
    JobKind::of::<MintReading>(),
    JobKind::of::<SweepUnminted>(),
    JobKind::of::<TriggerBatch>(),
];

/// A kind of job, without its type.
#[derive(Clone, Copy)]
pub(super) struct JobKind {
    name: &'static str,
    /// Registers the worker of this kind with the monitor.
    pub register_worker: fn(&WorkerParts, Monitor) -> Monitor,
}

impl JobKind {
    const fn of<J: Handle>() -> JobKind {
        JobKind {
            name: J::NAME,
            register_worker: register_worker::<J>,
        }
    }
}

/// Names of the queues, as in `apalis.jobs.job_type`.
pub fn job_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}
