//! Drains connections when the service shuts down, and counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The drain of one server's connections. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ConnectionDrain {
    /// Cancelled when the drain begins: open streams end, and new connections are answered for probes only.
    pub draining: CancellationToken,
    /// Cancelled at the limit: the remaining connections are cut.
    pub(super) cut: CancellationToken,
    /// Cancelled at the end: probes are answered until then.
    pub(super) closed: CancellationToken,
    /// The task that accepts connections: the drain waits for it, so that it includes one that is just being accepted.
    pub(super) accepting: TaskTracker,
    /// Connections that were opened before the drain.
    pub(super) connections: TaskTracker,
    /// Upgraded connections among them, which end by `draining`.
    pub streams: TaskTracker,
    answered: Arc<AtomicU64>,
}

/// The outcome of a drain, as counts of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests that were answered after the drain had begun.
    pub requests_answered: u64,
    /// Connections, streams included, that were open when it began and ended in time.
    pub connections_closed: usize,
    /// The rest.
    pub connections_cut: usize,
}

/// A connection that is cut ends with the next poll of its task.
const CUT_LIMIT: Duration = Duration::from_secs(1);

impl ConnectionDrain {
    pub fn new() -> ConnectionDrain {
        ConnectionDrain::default()
    }

    pub(super) fn count_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends streams and idle connections now, the others as soon as their request is answered, and cuts what is left at the
    /// limit.
    pub async fn drain(&self, limit: Duration) -> DrainReport {
        let answered_before = self.answered.load(Ordering::Relaxed);
        let open = self.open();
        self.draining.cancel();
        for tasks in [&self.accepting, &self.connections, &self.streams] {
            tasks.close();
        }
        let ended = async {
            self.accepting.wait().await;
            tokio::join!(self.connections.wait(), self.streams.wait())
        };
        let connections_cut = match tokio::time::timeout(limit, ended).await {
            Ok(_) => 0,
            Err(_) => {
                let left = self.open();
                self.cut.cancel();
                let _ = tokio::time::timeout(CUT_LIMIT, self.connections.wait()).await;
                left
            }
        };
        DrainReport {
            requests_answered: self.answered.load(Ordering::Relaxed) - answered_before,
            connections_closed: open.saturating_sub(connections_cut),
            connections_cut,
        }
    }

    /// From now on the server answers nothing, not even probes.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn open(&self) -> usize {
        self.connections.len() + self.streams.len()
    }
}
