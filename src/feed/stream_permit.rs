//! Limits how many streams one process serves at once.
//!
//! Invariant: no more than `WEBSOCKET_MAX_CONNECTIONS` streams are open, whatever protocol they use, and each returns its permit
//! however it ends. Kept by the permit itself, which belongs to the stream's task and returns itself when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::telemetry::names;

/// Counts the open streams of this process; a clone counts the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamPermits(Arc<AtomicU32>);

impl StreamPermits {
    /// Streams that are open or about to open.
    pub fn taken(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// A permit for one more stream, if fewer than `streams_max` are taken.
    pub fn acquire(&self, kind: StreamKind, streams_max: u32) -> Option<StreamPermit> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < streams_max).then_some(taken + 1)
            })
            .ok()?;
        metrics::counter!(kind.opened()).increment(1);
        metrics::gauge!(kind.active()).increment(1.0);
        Some(StreamPermit {
            permits: self.clone(),
            kind,
        })
    }
}

/// A stream's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    WebSocket,
    ServerSentEvents,
}

impl StreamKind {
    /// Counter of opened streams.
    const fn opened(self) -> &'static str {
        match self {
            StreamKind::WebSocket => names::WEBSOCKET_CONNECTIONS,
            StreamKind::ServerSentEvents => names::SSE_STREAMS,
        }
    }

    /// Gauge of open streams.
    const fn active(self) -> &'static str {
        match self {
            StreamKind::WebSocket => names::WEBSOCKET_ACTIVE,
            StreamKind::ServerSentEvents => names::SSE_ACTIVE,
        }
    }
}

/// Permits one stream; dropping it permits another one.
#[derive(Debug)]
pub struct StreamPermit {
    permits: StreamPermits,
    kind: StreamKind,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.permits.0.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!(self.kind.active()).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_exactly() {
        let permits = StreamPermits::default();
        let permit = |kind| permits.acquire(kind, 2);
        let first = permit(StreamKind::WebSocket).unwrap();
        let second = permit(StreamKind::ServerSentEvents).unwrap();
        assert!(permit(StreamKind::WebSocket).is_none());
        drop(first);
        let third = permit(StreamKind::WebSocket).unwrap();
        assert!(permit(StreamKind::ServerSentEvents).is_none());
        drop((second, third));
        assert_eq!(permits.taken(), 0);
    }
}
