//! Whether the queue's workers still do anything.
//!
//! apalis waits for its own statements one at a time and without a limit, so a session of the database that falls silent stops
//! a worker for ever, and nothing ends. What shows it is the heartbeat that does not come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use apalis_core::worker::context::WorkerContext;
use apalis_core::worker::event::Event;
use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The last heartbeat of each worker of this process, by kind. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<Mutex<HashMap<&'static str, Instant>>>);

impl Pulse {
    /// Counts from now on: what the worker of this kind that starts now is to do with its events.
    pub fn listen(
        &self,
        kind: &'static str,
    ) -> impl Fn(&WorkerContext, &Event) + Send + Sync + 'static + use<> {
        self.beat(kind);
        let pulse = self.clone();
        move |_, event| {
            if matches!(event, Event::HeartBeat) {
                pulse.beat(kind);
            }
        }
    }

    fn beat(&self, kind: &'static str) {
        self.beats().insert(kind, Instant::now());
    }

    /// Returns a worker that has been silent for so long, once there is one.
    pub async fn until_silent_for(&self, limit: Duration) -> &'static str {
        loop {
            sleep(LOOK_EVERY).await;
            let beats = self.beats();
            let silent = beats.iter().find(|(_, beat)| beat.elapsed() > limit);
            if let Some((kind, _)) = silent {
                return *kind;
            }
        }
    }

    fn beats(&self) -> MutexGuard<'_, HashMap<&'static str, Instant>> {
        // Only whole moments are put in: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_is_silent_is_named() {
        let pulse = Pulse::default();
        pulse.beat("mint");
        pulse.beat("sweep");
        let beating = pulse.clone();
        let beats = async move {
            loop {
                beating.beat("mint");
                sleep(Duration::from_millis(100)).await;
            }
        };
        let silent = tokio::select! {
            () = beats => unreachable!("it beats for ever"),
            silent = pulse.until_silent_for(Duration::from_millis(500)) => silent,
        };
        assert_eq!(silent, "sweep");
    }
}
