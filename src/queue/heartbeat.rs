//! Detects a queue worker that is stuck.
//!
//! apalis awaits its own statements one at a time and without a limit, so a session of the database that falls silent stops a
//! worker indefinitely, and nothing reports an error. Only the missing heartbeat shows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apalis_core::worker::context::WorkerContext;
use apalis_core::worker::event::Event;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

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

    /// The kind of a worker that has been silent for longer than `limit`. It is returned once: all workers are restarted then,
    /// and the time of each counts from its start.
    fn take_silent_for(&self, limit: Duration) -> Option<&'static str> {
        let mut last = self.last();
        let silent = last.iter().find(|(_, beat)| beat.elapsed() > limit);
        let kind = silent.map(|(kind, _)| *kind)?;
        last.clear();
        Some(kind)
    }

    fn last(&self) -> MutexGuard<'_, HashMap<&'static str, Instant>> {
        // Each insertion is complete in itself, so a panic elsewhere leaves the map valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the heartbeats.
struct HeartbeatCheck {
    heartbeats: Heartbeats,
    limit: Duration,
    silent: mpsc::Sender<&'static str>,
}

impl Heartbeats {
    /// Checks whether a worker has been silent for longer than `limit`, and sends its kind.
    pub fn check_task(&self, limit: Duration, silent: mpsc::Sender<&'static str>) -> PeriodicTask {
        let check = HeartbeatCheck {
            heartbeats: self.clone(),
            limit,
            silent,
        };
        let timing = Timing::new("heartbeat check", CHECK_EVERY).with_limit(CHECK_EVERY);
        PeriodicTask::new(timing, check)
    }
}

impl Periodic for HeartbeatCheck {
    async fn run(&mut self) -> Result<(), RunError> {
        if let Some(kind) = self.heartbeats.take_silent_for(self.limit) {
            // One that waits to be received restarts all workers as well.
            let _ = self.silent.try_send(kind);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::periodic::TaskList;

    #[tokio::test]
    async fn the_worker_that_is_silent_is_reported_once() {
        let heartbeats = Heartbeats::default();
        heartbeats.beat("sweep");
        let limit = Duration::from_millis(500);
        let (silent, mut reported) = mpsc::channel(1);
        let (list, stop) = (TaskList::default(), CancellationToken::new());
        tokio::spawn(
            heartbeats
                .check_task(limit, silent)
                .run(&list, stop.clone()),
        );
        let healthy = async move {
            loop {
                heartbeats.beat("mint");
                sleep(limit / 5).await;
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(healthy));
        let first = timeout(Duration::from_secs(20), reported.recv()).await;
        assert_eq!(first, Ok(Some("sweep")));
        let again = timeout(3 * CHECK_EVERY, reported.recv()).await;
        assert!(again.is_err(), "{again:?}");
        stop.cancel();
    }
}
