//! Counts the jobs that this process has finished, for the last line of its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clones share one count.
#[derive(Clone, Debug, Default)]
pub struct FinishedJobs(Arc<AtomicU64>);

impl FinishedJobs {
    /// One more handler ran to its end. Its result is in the database.
    pub(super) fn count_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Since the process started.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
