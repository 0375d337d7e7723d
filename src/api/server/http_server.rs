//! Describes the server: its routes and its connection limits.

use std::time::Duration;

use axum::Router;

use super::drain::ConnectionDrain;
use super::probes_only::ProbesOnly;
use crate::api::operations::operations_state::Operations;
use crate::api::state::AppState;

/// Everything that the server answers with.
#[derive(Clone)]
pub struct HttpServer {
    pub router: Router,
    pub operations: Operations,
    /// `None` in a process that serves no API.
    pub api: Option<AppState>,
    pub drain: ConnectionDrain,
}

impl HttpServer {
    /// Streams of the feed that may be open at once.
    pub(super) fn streams_max(&self) -> usize {
        self.api.as_ref().map_or(0, |api| {
            usize::try_from(api.feed.limits.max_connections).unwrap_or(usize::MAX)
        })
    }

    /// During a drain, all streams have sent their last event within this time.
    pub(super) fn streams_end_within(&self) -> Duration {
        self.api
            .as_ref()
            .map_or(Duration::ZERO, |api| api.feed.drain_schedule.spread_max())
    }
}

/// The class of a connection: which of its requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionClass {
    Any,
    Probes(ProbesOnly),
}
