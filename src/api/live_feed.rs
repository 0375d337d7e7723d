//! Gives stream handlers the hub, its limits and the drain.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::problem::Problem;
use crate::config::WebsocketConfig;
use crate::feed::{DrainSchedule, Hub, StreamKind, StreamPermit};
use crate::telemetry::names;

/// Clones share it.
#[derive(Clone)]
pub struct LiveFeed {
    /// The numbered events, for every listener of this process.
    pub hub: Hub,
    pub limits: Arc<WebsocketConfig>,
    /// When open streams leave a process that drains.
    pub drain_schedule: DrainSchedule,
    /// Cancelled when the service drains: no stream is opened any more.
    pub draining: CancellationToken,
    /// Upgraded connections, which end by `draining`.
    pub connections: TaskTracker,
}

impl LiveFeed {
    /// Events that may wait for one client.
    pub fn buffer_events(&self) -> usize {
        usize::try_from(self.limits.event_buffer_size).unwrap_or(usize::MAX)
    }

    /// Takes one of the streams of this process.
    pub fn take_permit(&self, kind: StreamKind) -> Result<StreamPermit, Problem> {
        if self.draining.is_cancelled() {
            return Err(Problem::unavailable(
                "this process is shutting down; connect again, and another one answers",
            ));
        }
        let permit = self.hub.stream_permit(kind, self.limits.max_connections);
        permit.ok_or_else(|| self.full())
    }

    /// Refuses while every stream of this process is taken.
    pub fn check_capacity(&self) -> Result<(), Problem> {
        if self.hub.open_streams() >= self.limits.max_connections {
            return Err(self.full());
        }
        Ok(())
    }

    fn full(&self) -> Problem {
        metrics::counter!(names::STREAMS_REFUSED).increment(1);
        let streams = self.limits.max_connections;
        Problem::unavailable(format!(
            "all {streams} streams of this process are taken; try again later, or use GET /api/events"
        ))
    }
}
