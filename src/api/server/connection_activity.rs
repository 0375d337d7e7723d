//! Tracks the requests and streams of one connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// One of the server's connections, free for another one once every clone is dropped. A WebSocket keeps it: its connection
/// outlives the request that opened it, and is still an open file.
#[derive(Clone, Debug)]
pub struct ConnectionSlot(
    #[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>,
);

impl ConnectionSlot {
    pub fn new(permit: OwnedSemaphorePermit) -> ConnectionSlot {
        ConnectionSlot(Arc::new(permit))
    }
}

/// The streams of a connection, for a stream that continues after its handler has returned. Clones share them.
#[derive(Clone, Debug)]
pub struct OpenStreams(TaskTracker);

impl OpenStreams {
    pub fn new() -> OpenStreams {
        OpenStreams(closed_tracker())
    }

    /// While the token is held, a drain keeps the connection open for the last event of the stream, as long as
    /// [`wait`](Self::wait) allows.
    pub fn hold(&self) -> TaskTrackerToken {
        self.0.token()
    }

    /// Returns once every stream has ended, or after the limit: a client that no longer reads never receives its last event, and
    /// the drain waits for it no longer than for the others.
    pub async fn wait(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.0.wait()).await;
    }
}

/// The requests of a connection that a handler is working on. Clones share them.
#[derive(Clone, Debug)]
pub struct RequestsInFlight(TaskTracker);

/// How often a drain checks whether a connection is idle. A request that comes and goes between two checks is not seen, which
/// only shortens the wait for a client that could be disconnected anyway.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl RequestsInFlight {
    pub fn new() -> RequestsInFlight {
        RequestsInFlight(closed_tracker())
    }

    /// Counts a request until the token is dropped.
    pub fn begin(&self) -> TaskTrackerToken {
        self.0.token()
    }

    /// Returns once no handler has had a request for this long.
    pub async fn idle_for(&self, grace: Duration) {
        let mut idle = Duration::ZERO;
        while idle < grace {
            tokio::time::sleep(IDLE_CHECK_INTERVAL).await;
            idle = if self.0.is_empty() {
                idle + IDLE_CHECK_INTERVAL
            } else {
                Duration::ZERO
            };
        }
    }
}

/// A tracker that only counts: closed from the start, so that waiting for it ends whenever it is empty.
fn closed_tracker() -> TaskTracker {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker
}
