//! Detects a queue worker that is stuck.
//!
//! apalis awaits its own statements one at a time and without a limit, so a session of the database that falls silent stops a
//! worker indefinitely, and nothing reports an error. Only the missing heartbeat shows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apalis_core::worker::context::WorkerContext;
use apalis_core::worker::event::Event;
use tokio::time::{Instant, sleep};

const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The last heartbeat of each worker of this process, by kind. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeats(Arc<Mutex<HashMap<&'static str, Instant>>>);

impl Heartbeats {
    /// Returns the event handler of a worker of this kind that starts now; its time counts from now on.
    pub fn listener(
        &self,
        kind: &'static str,
    ) -> impl Fn(&WorkerContext, &Event) + Send + Sync + 'static + use<> {
        self.beat(kind);
        let heartbeats = self.clone();
        move |_, event| {
            if matches!(event, Event::HeartBeat) {
                heartbeats.beat(kind);
            }
        }
    }

    fn beat(&self, kind: &'static str) {
        self.last().insert(kind, Instant::now());
    }

    /// Waits until a worker has been silent for longer than `limit`, then returns its kind.
    pub async fn until_silent_for(&self, limit: Duration) -> &'static str {
        loop {
            sleep(CHECK_EVERY).await;
            let last = self.last();
            let silent = last.iter().find(|(_, beat)| beat.elapsed() > limit);
            if let Some((kind, _)) = silent {
                return *kind;
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, HashMap<&'static str, Instant>> {
        // Each insertion is complete in itself, so a panic elsewhere leaves the map valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worker_that_is_silent_is_returned() {
        let heartbeats = Heartbeats::default();
        heartbeats.beat("mint");
        heartbeats.beat("sweep");
        let healthy = heartbeats.clone();
        let beats = async move {
            loop {
                healthy.beat("mint");
                sleep(Duration::from_millis(100)).await;
            }
        };
        let silent = tokio::select! {
            () = beats => unreachable!("it beats indefinitely"),
            silent = heartbeats.until_silent_for(Duration::from_millis(500)) => silent,
        };
        assert_eq!(silent, "sweep");
    }
}
