//! The state machine of the circuit breaker: pure.

use std::time::Duration;

use super::cause::Cause;
use super::error::ChainError;
use crate::domain::{Backoff, Jitter};

/// Batches in a row that must fail because of the chain.
pub(super) const FAILED_BATCHES_TO_OPEN: u32 = 3;
/// Between two probes while the breaker is closed and batches run.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Between two probes while the breaker is closed and no batch runs: an outage delays nothing then, and the first batch after an
/// idle time has the chain probed at once.
pub const PROBE_IDLE_EVERY: Duration = Duration::from_secs(20);
/// The processes of a deployment must not probe in step.
const JITTER: Jitter = Jitter::plus_minus(20);
/// Between two probes while the chain itself is unreachable or overloaded.
const CHAIN_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(30)).with_jitter(JITTER);
/// No pause between two probes is longer: the cap above with its jitter.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_secs(36);
/// Between two probes while the chain answers and an operator has to act: a probe costs little, and an operator who has topped
/// up the fee payer should not have to wait.
const OPERATOR_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(1), Duration::from_secs(4)).with_jitter(JITTER);

/// Whether a process has minted lately: decides how often it probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Busy,
    Idle,
}

impl Activity {
    /// Between two probes while the breaker is closed.
    pub fn probe_every(self) -> Duration {
        match self {
            Activity::Busy => PROBE_EVERY,
            Activity::Idle => PROBE_IDLE_EVERY,
        }
    }
}

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
pub(super) struct BreakerState {
    pub open: Option<Cause>,
    /// In a row.
    failed_probes: u32,
    /// In a row.
    failed_batches: u32,
    /// Number of times that failed batches have opened the breaker since one succeeded.
    reopenings: u32,
    /// Number of times that failed batches have opened it at all.
    pub batch_openings: u64,
}

impl BreakerState {
    pub fn record_probe(&mut self, found: Result<(), Cause>) {
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

    pub fn batch_succeeded(&mut self) {
        self.failed_batches = 0;
        self.reopenings = 0;
    }

    pub fn batch_failed(&mut self, error: ChainError) {
        self.failed_batches = self.failed_batches.saturating_add(1);
        // After a reopening the first failure is enough.
        let opens = self.failed_batches >= FAILED_BATCHES_TO_OPEN || self.reopenings > 0;
        if opens && self.open.is_none() {
            self.failed_batches = 0;
            self.reopenings = self.reopenings.saturating_add(1);
            self.batch_openings += 1;
            self.open = Some(Cause::Failing(error));
        }
    }

    /// Until the next probe; `random` is uniform in `0.0..1.0`.
    pub fn pause(&self, activity: Activity, random: f64) -> Duration {
        match &self.open {
            None => activity.probe_every(),
            Some(cause) => backoff(cause).delay(self.failed_probes.max(self.reopenings), random),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chain::error_reason::NoAnswer;
    use crate::chain::fee_budget::Funds;

    pub(in crate::chain) fn time_out() -> ChainError {
        ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "getSlot",
            reason: NoAnswer::TimedOut,
        }
    }

    pub(in crate::chain) fn unreachable() -> Cause {
        Cause::Unreachable(time_out())
    }

    pub(in crate::chain) fn empty() -> Cause {
        Cause::FeePayerEmpty(Funds::default())
    }

    #[test]
    fn a_failed_probe_opens_and_the_first_good_one_closes() {
        let mut state = BreakerState::default();
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
            let mut state = BreakerState::default();
            (0..7)
                .map(|_| {
                    state.record_probe(Err(cause.clone()));
                    state.pause(Activity::Busy, 0.5).as_secs()
                })
                .collect()
        };
        assert_eq!(pauses(unreachable()), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses(empty()), [1, 2, 4, 4, 4, 4, 4]);
        assert_eq!(
            BreakerState::default().pause(Activity::Busy, 0.9),
            PROBE_EVERY
        );
    }

    #[test]
    fn failing_batches_open_it_and_a_good_probe_does_not_reset_their_count() {
        let mut state = BreakerState::default();
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
        assert_eq!(state.pause(Activity::Busy, 0.5).as_secs(), 1);
        for expected in [2, 4, 8] {
            state.record_probe(Ok(()));
            assert_eq!(state.open, None, "a good probe lets a batch try");
            state.batch_failed(time_out());
            assert!(state.open.is_some(), "the first failure is enough now");
            assert_eq!(state.pause(Activity::Busy, 0.5).as_secs(), expected);
        }
        state.record_probe(Ok(()));
        state.batch_succeeded();
        state.batch_failed(time_out());
        assert_eq!(state.open, None, "a success resets the count");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth_and_the_cap(probes in 1_usize..40, random in 0.0..1.0_f64) {
            let mut state = BreakerState::default();
            for _ in 0..probes {
                state.record_probe(Err(unreachable()));
            }
            let (exact, jittered) = (state.pause(Activity::Busy, 0.5).as_secs_f64(), state.pause(Activity::Busy, random).as_secs_f64());
            prop_assert!((jittered - exact).abs() <= exact * 0.2 + 1e-6);
            prop_assert!(jittered <= 30.0 * 1.2 + 1e-6);
        }

        /// After any sequence of events: a good probe closes it, and it never opens without a failed probe or batch.
        #[test]
        fn it_opens_and_closes_only_for_cause(events in prop::collection::vec(0_u8..4, 1..100)) {
            let mut state = BreakerState::default();
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
}
