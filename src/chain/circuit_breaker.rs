//! The circuit breaker of the chain: whether minting is worth trying now, per process and in memory.
//!
//! Invariant: while it is open this process mints nothing and no reading uses an attempt. The chain is probed again after
//! pauses that grow, and the first probe that finds no fault closes the breaker. What is probed is decided by
//! [`ChainProbe`](super::ChainProbe) and by the caller; this file only draws the conclusion. Batches that fail although every
//! probe succeeds open the breaker too: then the pauses grow until a batch succeeds, so that a fault which the probes do not
//! detect is not hammered. A pause begins when the breaker opens, and nothing shortens it.
//!
//! Status, readiness and the gauge show the same state at any time: all are set under the lock that guards it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

use super::breaker_state::{Activity, BreakerState};
use super::cause::Cause;
use super::error::ChainError;
use crate::telemetry::{Health, HealthPart, names};

/// Without a batch for this long a process is idle. A process that has just started is not.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// Between two probes at least, no matter how many callers request one.
const PROBE_GAP: Duration = Duration::from_millis(500);

/// A snapshot of the circuit breaker.
#[derive(Clone, Debug)]
pub struct CircuitBreakerView {
    /// `None`: closed.
    pub open: Option<Cause>,
    pub since: DateTime<Utc>,
}

impl CircuitBreakerView {
    /// `Err` with the cause while nothing can be minted.
    pub fn allows_minting(&self) -> Result<(), Cause> {
        match &self.open {
            None => Ok(()),
            Some(cause) => Err(cause.clone()),
        }
    }
}

/// A handle; clones share one circuit breaker.
#[derive(Clone)]
pub struct CircuitBreaker(Arc<BreakerInner>);

struct BreakerInner {
    state: Mutex<BreakerState>,
    view: watch::Sender<CircuitBreakerView>,
    check_now: Notify,
    last_batch: Mutex<Instant>,
    health: OnceLock<Health>,
}

/// The reason for which a probe begins now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeReason {
    /// Its time has come: what another process found moments ago is as good.
    Due,
    /// A caller has met a fault, or begins to mint after an idle time: this process has to see for itself.
    Requested,
}

/// A probe that is under way: what it finds cannot close a breaker that batches opened after it began.
#[derive(Clone, Copy, Debug)]
pub struct BegunProbe {
    batch_openings: u64,
}

impl Default for CircuitBreaker {
    /// Closed.
    fn default() -> CircuitBreaker {
        CircuitBreaker(Arc::new(BreakerInner {
            state: Mutex::default(),
            view: watch::Sender::new(CircuitBreakerView {
                open: None,
                since: Utc::now(),
            }),
            check_now: Notify::new(),
            last_batch: Mutex::new(Instant::now()),
            health: OnceLock::new(),
        }))
    }
}

impl CircuitBreaker {
    pub fn view(&self) -> CircuitBreakerView {
        self.0.view.borrow().clone()
    }

    /// Waits until it is closed, no longer than `limit`; then returns the cause.
    pub async fn until_closed(&self, limit: Duration) -> Result<(), Cause> {
        let mut views = self.0.view.subscribe();
        let closed = views.wait_for(|view| view.open.is_none());
        match tokio::time::timeout(limit, closed).await {
            Ok(_) => Ok(()),
            Err(_) => self.view().allows_minting(),
        }
    }

    /// From now on readiness shows its state. Only the first call has an effect.
    pub fn report_to(&self, health: Health) {
        let _ = self.0.health.set(health);
    }

    /// Called before a probe.
    pub fn begin_probe(&self) -> BegunProbe {
        BegunProbe {
            batch_openings: self.state().batch_openings,
        }
    }

    /// Opens or closes the breaker by the result of a probe.
    pub fn record_probe(&self, begun: BegunProbe, found: Result<(), Cause>) {
        self.change(|state| {
            if found.is_err() || begun.batch_openings == state.batch_openings {
                state.record_probe(found);
            }
        });
    }

    /// A batch begins. After an idle time the chain is probed now.
    pub fn batch_begins(&self) {
        let was_idle = {
            let mut last = self.last_batch();
            let before = std::mem::replace(&mut *last, Instant::now());
            before.elapsed() >= IDLE_AFTER
        };
        if was_idle {
            self.check_now();
        }
    }

    /// A batch got every answer that it needed from the chain.
    pub fn batch_succeeded(&self) {
        self.change(BreakerState::batch_succeeded);
    }

    /// A batch failed because of the chain. Starts a probe, or opens the breaker after several in a row: then the pause counts.
    pub fn batch_failed(&self, error: ChainError) {
        self.change(|state| state.batch_failed(error));
        if self.view().open.is_none() {
            self.check_now();
        }
    }

    /// Requests a probe now rather than when the next one is due: the caller has met a fault that a probe would detect.
    pub fn check_now(&self) {
        self.0.check_now.notify_one();
    }

    /// Returns when the next probe is due: after its pause, or at once when a caller has requested a probe and the chain has not
    /// opened the breaker: then the pause protects the chain. `random` is uniform in `0.0..1.0`.
    pub async fn until_next_probe(&self, random: f64) -> ProbeReason {
        let mut from = tokio::time::Instant::now();
        let mut views = self.0.view.subscribe();
        let mut was_open = views.borrow().open.is_some();
        tokio::time::sleep(PROBE_GAP).await;
        loop {
            let (pause, open) = self.pause(random);
            let may_be_requested = !self.is_open_by_chain();
            if open != was_open {
                // A batch has opened it: another pause counts, from now.
                from = tokio::time::Instant::now();
                was_open = open;
            }
            tokio::select! {
                () = tokio::time::sleep_until(from + pause) => return ProbeReason::Due,
                () = self.0.check_now.notified(), if may_be_requested => {
                    // Nothing is wrong with the chain while the ledger keeps it open.
                    return if open { ProbeReason::Due } else { ProbeReason::Requested };
                }
                () = until_changed(&mut views, open) => {}
            }
        }
    }

    fn is_open_by_chain(&self) -> bool {
        let open = &self.state().open;
        open.as_ref()
            .is_some_and(|cause| !matches!(cause, Cause::LedgerBreaker(_)))
    }

    /// Until the next probe, and whether the breaker is open.
    fn pause(&self, random: f64) -> (Duration, bool) {
        let activity = self.activity();
        let state = self.state();
        (state.pause(activity, random), state.open.is_some())
    }

    /// Whether batches run.
    pub fn activity(&self) -> Activity {
        if self.last_batch().elapsed() < IDLE_AFTER {
            Activity::Busy
        } else {
            Activity::Idle
        }
    }

    fn last_batch(&self) -> MutexGuard<'_, Instant> {
        self.0
            .last_batch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BreakerState)) {
        // The lock is held until view, gauge and health are updated: two changes must not become visible in the other order.
        let mut state = self.state();
        change(&mut state);
        report(state.open.as_ref(), self.0.health.get());
        self.0.view.send_if_modified(|view| {
            if view.open == state.open {
                return false;
            }
            if view.open.is_some() != state.open.is_some() {
                view.since = Utc::now();
            }
            view.open.clone_from(&state.open);
            true
        });
    }
}

async fn until_changed(views: &mut watch::Receiver<CircuitBreakerView>, was_open: bool) {
    // The sender lives as long as the breaker.
    let _ = views.wait_for(|view| view.open.is_some() != was_open).await;
}

/// Shows the state in the gauge and in the parts of health: `chain`, and `breaker` for the ledger's own one.
fn report(open: Option<&Cause>, health: Option<&Health>) {
    let is_of_chain = open.is_some_and(|cause| !matches!(cause, Cause::LedgerBreaker(_)));
    metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(f64::from(u8::from(is_of_chain)));
    let Some(health) = health else {
        return;
    };
    match open {
        None => {
            health.ok(HealthPart::Chain);
            health.ok(HealthPart::Breaker);
        }
        Some(cause @ Cause::LedgerBreaker(_)) => {
            health.ok(HealthPart::Chain);
            health.degraded(HealthPart::Breaker, cause.to_string());
        }
        Some(cause) => {
            health.degraded(HealthPart::Chain, cause.to_string());
            // The balance is checked only once the ledger allows signing.
            if matches!(cause, Cause::FeePayerEmpty(_)) {
                health.ok(HealthPart::Breaker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::breaker_state::FAILED_BATCHES_TO_OPEN;
    use crate::chain::breaker_state::tests::{empty, time_out, unreachable};
    use crate::domain::SigningRefused;

    fn probe(breaker: &CircuitBreaker, found: Result<(), Cause>) {
        breaker.record_probe(breaker.begin_probe(), found);
    }

    /// A wait that began while the breaker was closed ends after the pause of the opening, which nothing shortens.
    #[tokio::test]
    async fn an_opening_during_the_wait_for_a_probe_begins_its_pause() {
        let breaker = CircuitBreaker::default();
        let waiting = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.until_next_probe(0.5).await }
        });
        tokio::time::sleep(PROBE_GAP / 5).await;
        let opened = Instant::now();
        for _ in 0..FAILED_BATCHES_TO_OPEN {
            breaker.batch_begins();
            breaker.batch_failed(time_out());
        }
        assert!(breaker.view().open.is_some());
        breaker.check_now();
        waiting.await.unwrap();
        assert!(
            opened.elapsed() >= Duration::from_secs(1),
            "{:?}",
            opened.elapsed()
        );
    }

    #[tokio::test]
    async fn a_probe_can_be_requested_while_only_the_ledger_keeps_it_open() {
        let breaker = CircuitBreaker::default();
        for _ in 0..7 {
            probe(&breaker, Err(Cause::LedgerBreaker(SigningRefused::Unbound)));
        }
        breaker.check_now();
        let requested = breaker.until_next_probe(0.5);
        let requested = tokio::time::timeout(Duration::from_secs(2), requested).await;
        assert_eq!(requested, Ok(ProbeReason::Due));
    }

    #[test]
    fn a_probe_that_began_before_batches_opened_it_does_not_close_it() {
        let breaker = CircuitBreaker::default();
        let begun = breaker.begin_probe();
        for _ in 0..FAILED_BATCHES_TO_OPEN {
            breaker.batch_failed(time_out());
        }
        breaker.record_probe(begun, Ok(()));
        assert!(breaker.view().open.is_some());
        probe(&breaker, Ok(()));
        assert!(breaker.view().open.is_none());
    }

    #[test]
    fn readiness_agrees_with_the_view_after_every_change() {
        let (breaker, health) = (CircuitBreaker::default(), Health::default());
        breaker.report_to(health.clone());
        let shows_open = || health.readiness().checks["chain"].reason.is_some();
        probe(&breaker, Ok(()));
        assert!(!shows_open());
        for _ in 0..FAILED_BATCHES_TO_OPEN {
            breaker.batch_failed(time_out());
            assert_eq!(shows_open(), breaker.view().open.is_some());
        }
        assert!(shows_open());
        probe(&breaker, Ok(()));
        assert!(!shows_open());
    }

    #[tokio::test]
    async fn a_waiting_caller_continues_when_it_closes_and_else_receives_the_cause() {
        let breaker = CircuitBreaker::default();
        assert_eq!(breaker.until_closed(Duration::ZERO).await, Ok(()));
        probe(&breaker, Err(unreachable()));
        assert_eq!(
            breaker.until_closed(Duration::from_millis(10)).await,
            Err(unreachable())
        );
        let waiting = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.until_closed(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        probe(&breaker, Ok(()));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[test]
    fn since_is_the_moment_of_opening_or_closing_not_of_another_cause() {
        let breaker = CircuitBreaker::default();
        probe(&breaker, Err(unreachable()));
        let opened = breaker.view().since;
        probe(&breaker, Err(empty()));
        assert_eq!(breaker.view().since, opened);
        probe(&breaker, Ok(()));
        assert!(breaker.view().since >= opened && breaker.view().open.is_none());
    }
}
