//! How many jobs this process has finished: the last line of its log tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clone counts in the same place.
#[derive(Clone, Debug, Default)]
pub struct JobTally(Arc<AtomicU64>);

impl JobTally {
    /// One more handler ran to its end, whatever it came to: that is in the database.
    pub(super) fn finished_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Since the process began.
    pub fn finished(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
