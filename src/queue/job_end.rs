//! The one line that a job leaves in the log: when it ends. A run that only puts its job off is worth a line to those who
//! look closely; one that found its job dead, or met a defect, was told where that happened.

use std::fmt::Display;
use std::time::Instant;

use crate::outbox::JobKind;

/// A run of a job.
pub(super) struct JobRun<'a> {
    kind: JobKind,
    id: &'a str,
    started: Instant,
}

impl<'a> JobRun<'a> {
    pub fn begin(kind: JobKind, id: &'a str) -> JobRun<'a> {
        JobRun {
            kind,
            id,
            started: Instant::now(),
        }
    }

    fn duration_ms(&self) -> f64 {
        self.started.elapsed().as_micros() as f64 / 1000.0
    }

    /// A job about one reading ended.
    pub fn ended_reading(&self, reading_id: &dyn Display, outcome: &'static str) {
        tracing::info!(
            job = self.kind.as_str(),
            job_id = self.id,
            %reading_id,
            outcome,
            duration_ms = self.duration_ms(),
            "job ended"
        );
    }

    /// A job about a batch ended; a sweep that was not needed has none.
    pub fn ended_batch(&self, batch_id: Option<&dyn Display>, outcome: &'static str) {
        tracing::info!(
            job = self.kind.as_str(),
            job_id = self.id,
            batch_id = batch_id.map(tracing::field::display),
            outcome,
            duration_ms = self.duration_ms(),
            "job ended"
        );
    }

    pub fn put_off(&self, reason: &dyn Display) {
        tracing::debug!(
            job = self.kind.as_str(),
            job_id = self.id,
            reason = %reason,
            duration_ms = self.duration_ms(),
            "job put off"
        );
    }
}
