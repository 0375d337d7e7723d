//! The circuit breaker of the chain: whether minting is worth trying now, per process and in memory.
//!
//! Invariant: while it is open nobody mints and no reading uses an attempt; it is looked at again in pauses that grow, and
//! the first look that finds nothing wrong closes it. What is looked at is [`super::survey`]'s and the caller's; here is
//! only what follows from it. Batches that fail although every look is fine open it too: then the pauses go on growing until
//! a batch succeeds, so that a fault which the looks do not see is not hammered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

/// Batches in a row that must fail for want of the chain.
const FAILED_BATCHES_TO_OPEN: u32 = 3;
/// While it is closed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks, however many suspect something.
const LOOK_GAP: Duration = Duration::from_millis(500);
/// The first pause while it is open; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause where the chain itself is away or overloaded.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause where the chain answers and a person has to act: a look costs little, and whoever has paid in does not
/// want to wait.
const PAUSE_MAX_FOR_PEOPLE: Duration = Duration::from_secs(4);
/// Jitter to both sides, a part of the pause: the processes of a deployment do not look in step.
const JITTER: f64 = 0.2;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No endpoint answers.
    Unreachable,
    /// Endpoints answer, all of them behind.
    Lagging,
    /// Every endpoint asked to be left alone for a while.
    RateLimited,
    /// Endpoints answer, and batches fail all the same.
    Failing,
    /// The fee payer cannot pay another fee.
    FeePayerEmpty,
    /// The mint is not there, or not ours to mint.
    MintUnknown,
    /// The ledger breaker is open.
    Ledger,
}

impl Trouble {
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Lagging => "lagging",
            Trouble::RateLimited => "rate_limited",
            Trouble::Failing => "failing",
            Trouble::FeePayerEmpty => "fee_payer_empty",
            Trouble::MintUnknown => "mint_unknown",
            Trouble::Ledger => "ledger",
        }
    }

    fn pause_max(self) -> Duration {
        match self {
            Trouble::Unreachable | Trouble::Lagging | Trouble::RateLimited | Trouble::Failing => {
                PAUSE_MAX
            }
            Trouble::FeePayerEmpty | Trouble::MintUnknown | Trouble::Ledger => PAUSE_MAX_FOR_PEOPLE,
        }
    }
}

/// Why it is open: what is wrong, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub trouble: Trouble,
    pub reason: String,
}

/// The state machine: pure.
#[derive(Clone, Debug, Default)]
struct State {
    open: Option<Opening>,
    /// Looks in a row that found something wrong.
    bad_looks: u32,
    /// Batches in a row that failed.
    failed_batches: u32,
    /// Openings by batches since one succeeded.
    relapses: u32,
}

impl State {
    fn looked(&mut self, found: Result<(), Opening>) {
        match found {
            Ok(()) => {
                self.open = None;
                self.bad_looks = 0;
            }
            Err(opening) => {
                self.open = Some(opening);
                self.bad_looks = self.bad_looks.saturating_add(1);
            }
        }
    }

    fn batch_succeeded(&mut self) {
        self.failed_batches = 0;
        self.relapses = 0;
    }

    fn batch_failed(&mut self, reason: &str) {
        self.failed_batches = self.failed_batches.saturating_add(1);
        // After a relapse the first failure is enough.
        let opens = self.failed_batches >= FAILED_BATCHES_TO_OPEN || self.relapses > 0;
        if opens && self.open.is_none() {
            self.failed_batches = 0;
            self.relapses = self.relapses.saturating_add(1);
            self.open = Some(Opening {
                trouble: Trouble::Failing,
                reason: format!("batches fail in a row, the last one because {reason}"),
            });
        }
    }

    /// Until the next look; `luck` is uniform in `0.0..1.0`.
    fn pause(&self, luck: f64) -> Duration {
        let Some(opening) = &self.open else {
            return LOOK_EVERY;
        };
        let doublings = self.bad_looks.max(self.relapses).saturating_sub(1).min(16);
        let exact = (PAUSE_FIRST * 2_u32.pow(doublings)).min(opening.trouble.pause_max());
        exact.mul_f64(1.0 - JITTER + 2.0 * JITTER * luck.clamp(0.0, 1.0))
    }
}

/// The circuit as others see it.
#[derive(Clone, Debug)]
pub struct CircuitView {
    /// `None`: closed.
    pub open: Option<Opening>,
    pub since: DateTime<Utc>,
}

impl CircuitView {
    /// `Err` with the reason while nothing can be minted.
    pub fn allows_minting(&self) -> Result<(), String> {
        match &self.open {
            None => Ok(()),
            Some(opening) => Err(opening.reason.clone()),
        }
    }
}

/// A handle; clones are the same circuit.
#[derive(Clone)]
pub struct Circuit(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    view: watch::Sender<CircuitView>,
    look_now: Notify,
}

impl Default for Circuit {
    /// Closed.
    fn default() -> Circuit {
        Circuit(Arc::new(Inner {
            state: Mutex::default(),
            view: watch::Sender::new(CircuitView {
                open: None,
                since: Utc::now(),
            }),
            look_now: Notify::new(),
        }))
    }
}

impl Circuit {
    pub fn view(&self) -> CircuitView {
        self.0.view.borrow().clone()
    }

    /// Waits until it is closed, no longer than `limit`; then the reason.
    pub async fn until_closed(&self, limit: Duration) -> Result<(), String> {
        let mut views = self.0.view.subscribe();
        let closed = views.wait_for(|view| view.open.is_none());
        match tokio::time::timeout(limit, closed).await {
            Ok(_) => Ok(()),
            Err(_) => self.view().allows_minting(),
        }
    }

    /// What a look found.
    pub fn looked(&self, found: Result<(), Opening>) {
        self.change(|state| state.looked(found));
    }

    /// A batch got what it wanted from the chain.
    pub fn batch_succeeded(&self) {
        self.change(State::batch_succeeded);
    }

    /// A batch failed for want of the chain: looked at now, and opened after some in a row.
    pub fn batch_failed(&self, reason: &str) {
        self.change(|state| state.batch_failed(reason));
        self.suspect();
    }

    /// Somebody met something that a look would tell: look now rather than in a few seconds.
    pub fn suspect(&self) {
        self.0.look_now.notify_one();
    }

    /// Ends when the next look is due: after its pause, or at once when it is closed and somebody suspects something.
    pub async fn until_next_look(&self, luck: f64) {
        let (pause, open) = {
            let state = self.state();
            (state.pause(luck), state.open.is_some())
        };
        tokio::time::sleep(LOOK_GAP).await;
        tokio::select! {
            () = tokio::time::sleep(pause.saturating_sub(LOOK_GAP)) => {}
            () = self.0.look_now.notified(), if !open => {}
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Under the lock to the end: two changes must not be shown in the other order.
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

    fn away() -> Opening {
        Opening {
            trouble: Trouble::Unreachable,
            reason: "no RPC endpoint answers".to_owned(),
        }
    }

    fn empty() -> Opening {
        Opening {
            trouble: Trouble::FeePayerEmpty,
            reason: "the fee payer is empty".to_owned(),
        }
    }

    #[test]
    fn a_bad_look_opens_and_the_first_good_one_closes() {
        let mut state = State::default();
        state.looked(Err(away()));
        assert_eq!(state.open, Some(away()));
        state.looked(Err(empty()));
        assert_eq!(state.open, Some(empty()), "the newest reason counts");
        state.looked(Ok(()));
        assert_eq!(state.open, None);
    }

    #[test]
    fn pauses_double_up_to_the_cap_of_their_trouble() {
        let pauses = |opening: Opening| -> Vec<u64> {
            let mut state = State::default();
            (0..7)
                .map(|_| {
                    state.looked(Err(opening.clone()));
                    state.pause(0.5).as_secs()
                })
                .collect()
        };
        assert_eq!(pauses(away()), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses(empty()), [1, 2, 4, 4, 4, 4, 4]);
        assert_eq!(State::default().pause(0.9), LOOK_EVERY);
    }

    #[test]
    fn failing_batches_open_it_and_a_good_look_does_not_make_it_forget_them() {
        let mut state = State::default();
        for _ in 0..2 {
            state.batch_failed("time-out");
        }
        state.batch_succeeded();
        for _ in 0..2 {
            state.batch_failed("time-out");
            assert_eq!(state.open, None);
        }
        state.batch_failed("time-out");
        assert_eq!(state.open.as_ref().unwrap().trouble, Trouble::Failing);
        assert_eq!(state.pause(0.5).as_secs(), 1);
        for expected in [2, 4, 8] {
            state.looked(Ok(()));
            assert_eq!(state.open, None, "a good look lets a batch try");
            state.batch_failed("time-out");
            assert!(state.open.is_some(), "the first failure is enough now");
            assert_eq!(state.pause(0.5).as_secs(), expected);
        }
        state.looked(Ok(()));
        state.batch_succeeded();
        state.batch_failed("time-out");
        assert_eq!(state.open, None, "forgotten");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth_and_the_cap(looks in 1_usize..40, luck in 0.0..1.0_f64) {
            let mut state = State::default();
            for _ in 0..looks {
                state.looked(Err(away()));
            }
            let (exact, jittered) = (state.pause(0.5).as_secs_f64(), state.pause(luck).as_secs_f64());
            prop_assert!((jittered - exact).abs() <= exact * JITTER + 1e-6);
            prop_assert!(jittered <= PAUSE_MAX.as_secs_f64() * (1.0 + JITTER) + 1e-6);
        }

        /// Whatever happens: a good look closes it, and it never opens without a bad look or a failed batch.
        #[test]
        fn it_opens_and_closes_only_for_cause(events in prop::collection::vec(0_u8..4, 1..100)) {
            let mut state = State::default();
            for event in events {
                let was_open = state.open.is_some();
                match event {
                    0 => {
                        state.looked(Ok(()));
                        prop_assert!(state.open.is_none());
                    }
                    1 => {
                        state.looked(Err(away()));
                        prop_assert!(state.open.is_some());
                    }
                    2 => {
                        state.batch_failed("time-out");
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
    async fn whoever_waits_goes_on_when_it_closes_and_else_hears_the_reason() {
        let circuit = Circuit::default();
        assert_eq!(circuit.until_closed(Duration::ZERO).await, Ok(()));
        circuit.looked(Err(away()));
        assert_eq!(
            circuit.until_closed(Duration::from_millis(10)).await,
            Err(away().reason)
        );
        let waiting = tokio::spawn({
            let circuit = circuit.clone();
            async move { circuit.until_closed(Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        circuit.looked(Ok(()));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[test]
    fn since_is_the_moment_of_opening_or_closing_not_of_another_reason() {
        let circuit = Circuit::default();
        circuit.looked(Err(away()));
        let opened = circuit.view().since;
        circuit.looked(Err(empty()));
        assert_eq!(circuit.view().since, opened);
        circuit.looked(Ok(()));
        assert!(circuit.view().since >= opened && circuit.view().open.is_none());
    }
}
