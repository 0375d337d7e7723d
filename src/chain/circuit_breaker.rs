//! The circuit breaker of the chain: whether minting is worth trying now, per process and in memory.
//!
//! Invariant: while it is open this process mints nothing and no reading uses an attempt. The chain is probed again after
//! pauses that grow, and the first probe that finds no fault closes the breaker. What is probed is decided by
//! [`super::chain_probe`] and by the caller; this file only draws the conclusion. Batches that fail although every probe
//! succeeds open the breaker too: then the pauses grow until a batch succeeds, so that a fault which the probes do not
//! detect is not hammered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

use super::cause::Cause;
use super::error::ChainError;
use crate::domain::{Backoff, Jitter};

/// Batches in a row that must fail because of the chain.
const FAILED_BATCHES_TO_OPEN: u32 = 3;
/// Between two probes while the breaker is closed.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Between two probes at least, no matter how many callers request one.
const PROBE_GAP: Duration = Duration::from_millis(500);
/// The processes of a deployment must not probe in step.
const JITTER: Jitter = Jitter::plus_minus(20);
/// Between two probes while the chain itself is unreachable or overloaded.
const CHAIN_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(30)).with_jitter(JITTER);
/// Between two probes while the chain answers and an operator has to act: a probe costs little, and an operator who has topped
/// up the fee payer should not have to wait.
const OPERATOR_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(4)).with_jitter(JITTER);

fn backoff(cause: &Cause) -> Backoff {
    match cause {
        Cause::Unreachable(_) | Cause::Lagging(_) | Cause::RateLimited | Cause::Failing(_) => {
            CHAIN_BACKOFF
        }
        Cause::FeePayerEmpty(_) | Cause::MintUnknown(_) | Cause::LedgerBreaker(_) => {
            OPERATOR_BACKOFF
        }
    }
}

/// The state machine: pure.
#[derive(Clone, Debug, Default)]
struct State {
    open: Option<Cause>,
    /// In a row.
    failed_probes: u32,
    /// In a row.
    failed_batches: u32,
    /// How often failed batches have opened the breaker since one succeeded.
    reopenings: u32,
}

impl State {
    fn record_probe(&mut self, found: Result<(), Cause>) {
        match found {
            Ok(()) => {
                self.open = None;
                self.failed_probes = 0;
            }
            Err(cause) => {
                self.open = Some(cause);
                self.failed_probes = self.failed_probes.saturating_add(1);
            }
        }
    }

    fn batch_succeeded(&mut self) {
        self.failed_batches = 0;
        self.reopenings = 0;
    }

    fn batch_failed(&mut self, error: ChainError) {
        self.failed_batches = self.failed_batches.saturating_add(1);
        // After a reopening the first failure is enough.
        let opens = self.failed_batches >= FAILED_BATCHES_TO_OPEN || self.reopenings > 0;
        if opens && self.open.is_none() {
            self.failed_batches = 0;
            self.reopenings = self.reopenings.saturating_add(1);
            self.open = Some(Cause::Failing(error));
        }
    }

    /// Until the next probe; `random` is uniform in `0.0..1.0`.
    fn pause(&self, random: f64) -> Duration {
        match &self.open {
            None => PROBE_EVERY,
            Some(cause) => backoff(cause).delay(self.failed_probes.max(self.reopenings), random),
        }
    }
}

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
pub struct CircuitBreaker(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    view: watch::Sender<CircuitBreakerView>,
    check_now: Notify,
}

impl Default for CircuitBreaker {
    /// Closed.
    fn default() -> CircuitBreaker {
        CircuitBreaker(Arc::new(Inner {
            state: Mutex::default(),
            view: watch::Sender::new(CircuitBreakerView {
                open: None,
                since: Utc::now(),
            }),
            check_now: Notify::new(),
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

    /// Opens or closes the breaker by the result of a probe.
    pub fn record_probe(&self, found: Result<(), Cause>) {
        self.change(|state| state.record_probe(found));
    }

    /// A batch got every answer that it needed from the chain.
    pub fn batch_succeeded(&self) {
        self.change(State::batch_succeeded);
    }

    /// A batch failed because of the chain. Starts a probe, and opens the breaker after several in a row.
    pub fn batch_failed(&self, error: ChainError) {
        self.change(|state| state.batch_failed(error));
        self.check_now();
    }

    /// Requests a probe now rather than when the next one is due: the caller has met a fault that a probe would detect.
    pub fn check_now(&self) {
        self.0.check_now.notify_one();
    }

    /// Returns when the next probe is due: after its pause, or at once when the breaker is closed and a caller has requested a
    /// probe. `random` is uniform in `0.0..1.0`.
    pub async fn until_next_probe(&self, random: f64) {
        let (pause, open) = {
            let state = self.state();
            (state.pause(random), state.open.is_some())
        };
        tokio::time::sleep(PROBE_GAP).await;
        tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(PROBE_GAP)) => {}
            () = self.0.check_now.notified(), if !open => {}
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // The lock is held until the view is updated: two changes must not become visible in the other order.
        let mut state = self.state();
        change(&mut state);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chain::error_reason::NoAnswer;
    use crate::chain::fee_budget::Funds;

    fn time_out() -> ChainError {
        ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            reason: NoAnswer::TimedOut,
        }
    }

    fn unreachable() -> Cause {
        Cause::Unreachable(time_out())
    }

    fn empty() -> Cause {
        Cause::FeePayerEmpty(Funds::default())
    }

    #[test]
    fn a_failed_probe_opens_and_the_first_good_one_closes() {
        let mut state = State::default();
        state.record_probe(Err(unreachable()));
        assert_eq!(state.open, Some(unreachable()));
        state.record_probe(Err(empty()));
        assert_eq!(state.open, Some(empty()), "the newest cause counts");
        state.record_probe(Ok(()));
        assert_eq!(state.open, None);
    }

    #[test]
    fn pauses_double_up_to_the_cap_of_their_cause() {
        let pauses = |cause: Cause| -> Vec<u64> {
            let mut state = State::default();
            (0..7)
                .map(|_| {
                    state.record_probe(Err(cause.clone()));
                    state.pause(0.5).as_secs()
                })
                .collect()
        };
        assert_eq!(pauses(unreachable()), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses(empty()), [1, 2, 4, 4, 4, 4, 4]);
        assert_eq!(State::default().pause(0.9), PROBE_EVERY);
    }

    #[test]
    fn failing_batches_open_it_and_a_good_probe_does_not_reset_their_count() {
        let mut state = State::default();
        for _ in 0..2 {
            state.batch_failed(time_out());
        }
        state.batch_succeeded();
        for _ in 0..2 {
            state.batch_failed(time_out());
            assert_eq!(state.open, None);
        }
        state.batch_failed(time_out());
        assert_eq!(state.open, Some(Cause::Failing(time_out())));
        assert_eq!(state.pause(0.5).as_secs(), 1);
        for expected in [2, 4, 8] {
            state.record_probe(Ok(()));
            assert_eq!(state.open, None, "a good probe lets a batch try");
            state.batch_failed(time_out());
            assert!(state.open.is_some(), "the first failure is enough now");
            assert_eq!(state.pause(0.5).as_secs(), expected);
        }
        state.record_probe(Ok(()));
        state.batch_succeeded();
        state.batch_failed(time_out());
        assert_eq!(state.open, None, "a success resets the count");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth_and_the_cap(probes in 1_usize..40, random in 0.0..1.0_f64) {
            let mut state = State::default();
            for _ in 0..probes {
                state.record_probe(Err(unreachable()));
            }
            let (exact, jittered) = (state.pause(0.5).as_secs_f64(), state.pause(random).as_secs_f64());
            prop_assert!((jittered - exact).abs() <= exact * 0.2 + 1e-6);
            prop_assert!(jittered <= 30.0 * 1.2 + 1e-6);
        }

        /// After any sequence of events: a good probe closes it, and it never opens without a failed probe or batch.
        #[test]
        fn it_opens_and_closes_only_for_cause(events in prop::collection::vec(0_u8..4, 1..100)) {
            let mut state = State::default();
            for event in events {
                let was_open = state.open.is_some();
                match event {
                    0 => {
                        state.record_probe(Ok(()));
                        prop_assert!(state.open.is_none());
                    }
                    1 => {
                        state.record_probe(Err(unreachable()));
                        prop_assert!(state.open.is_some());
                    }
                    2 => {
                        state.batch_failed(time_out());
                        prop_assert!(!was_open || state.open.is_some());
                    }
                    _ => {
                        state.batch_succeeded();
                        prop_assert_eq!(state.open.is_some(), was_open);
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_waiting_caller_continues_when_it_closes_and_else_receives_the_cause() {
        let breaker = CircuitBreaker::default();
        assert_eq!(breaker.until_closed(Duration::ZERO).await, Ok(()));
        breaker.record_probe(Err(unreachable()));
        assert_eq!(
            breaker.until_closed(Duration::from_millis(10)).await,
            Err(unreachable())
        );
        let waiting = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.until_closed(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        breaker.record_probe(Ok(()));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[test]
    fn since_is_the_moment_of_opening_or_closing_not_of_another_cause() {
        let breaker = CircuitBreaker::default();
        breaker.record_probe(Err(unreachable()));
        let opened = breaker.view().since;
        breaker.record_probe(Err(empty()));
        assert_eq!(breaker.view().since, opened);
        breaker.record_probe(Ok(()));
        assert!(breaker.view().since >= opened && breaker.view().open.is_none());
    }
}
