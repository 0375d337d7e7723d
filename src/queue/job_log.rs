//! The one line that a job leaves in the log, when it ends. A deferred run leaves a line at level `debug`; a dead job or a
//! failed run is logged where that is found.

use std::fmt::Display;
use std::time::Instant;

/// One run of a job.
pub(super) struct JobLog<'a> {
    job_type: &'static str,
    id: &'a str,
    started: Instant,
}

impl<'a> JobLog<'a> {
    pub fn begin(job_type: &'static str, id: &'a str) -> JobLog<'a> {
        JobLog {
            job_type,
            id,
            started: Instant::now(),
        }
    }

    fn duration_ms(&self) -> f64 {
        // To the microsecond.
        (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e3
    }

    /// A job about one reading ended.
    pub fn ended_reading(&self, reading_id: &dyn Display, outcome: &'static str) {
        tracing::info!(
            job = self.job_type,
            job_id = self.id,
            %reading_id,
            outcome,
            duration_ms = self.duration_ms(),
            "job ended"
        );
    }

    /// A job about a batch ended. A sweep that was not needed has no batch.
    pub fn ended_batch(&self, batch_id: Option<&dyn Display>, outcome: &'static str) {
        tracing::info!(
            job = self.job_type,
            job_id = self.id,
            batch_id = batch_id.map(tracing::field::display),
            outcome,
            duration_ms = self.duration_ms(),
            "job ended"
        );
    }

    pub fn deferred(&self, reason: &str) {
        tracing::debug!(
            job = self.job_type,
            job_id = self.id,
            reason,
            duration_ms = self.duration_ms(),
            "job deferred"
        );
    }
}
