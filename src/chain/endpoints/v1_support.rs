//! Remembers whether an endpoint takes v1 transactions, as far as it is known: pure.
//!
//! Invariant: a wrong belief costs a fee or a repeated batch, never a reading. An endpoint that is believed to take v1 and refuses
//! it is detected before anything is signed, by the simulation; one that is believed to refuse it gets legacy transactions,
//! which every node takes.

use std::time::{Duration, Instant};

use crate::domain::Backoff;

/// Pause until an endpoint that refused v1 is probed again. Clusters and providers change over weeks; an endpoint that accepts the
/// probe and refuses the real transactions costs its readings a proof of death each time, so each refusal makes the next pause
/// longer.
const ASK_AGAIN: Backoff =
    Backoff::doubling(Duration::from_secs(600), Duration::from_secs(24 * 3_600));
/// Pause until an endpoint is probed again that gave no answer.
const ASK_UNANSWERED_AGAIN: Duration = Duration::from_secs(30);

/// The part of an answer that concerns v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chain) enum V1Answer {
    Takes,
    Refuses,
    /// It says nothing: no answer, a pause, a method that is switched off.
    Nothing,
}

/// The knowledge about one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::chain) struct V1Support {
    takes: Option<bool>,
    /// Refusals since the process started.
    refusals: u32,
    /// `None`: due now.
    ask_at: Option<Instant>,
    was_asked: bool,
}

impl V1Support {
    /// `None` until it has answered.
    pub fn takes(&self) -> Option<bool> {
        self.takes
    }

    /// Whether to probe: at first, after a recovery, and rarely while it refuses.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.was_asked || self.ask_at.is_some_and(|ask_at| now >= ask_at)
    }

    /// The endpoint answers again, or is another node by now: what was known may be outdated.
    pub fn recovered(&mut self) {
        self.was_asked = false;
    }

    pub fn record(&mut self, answer: V1Answer, now: Instant) {
        self.was_asked = true;
        match answer {
            V1Answer::Takes => {
                self.takes = Some(true);
                self.ask_at = None;
            }
            V1Answer::Refuses => {
                self.takes = Some(false);
                self.refusals = self.refusals.saturating_add(1);
                self.ask_at = Some(now + ASK_AGAIN.exact_delay(self.refusals));
            }
            V1Answer::Nothing => self.ask_at = Some(now + ASK_UNANSWERED_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_asked_once_and_again_after_a_recovery() {
        let now = Instant::now();
        let mut support = V1Support::default();
        assert!(support.is_due(now) && support.takes().is_none());
        support.record(V1Answer::Takes, now);
        assert_eq!(support.takes(), Some(true));
        let much_later = now + Duration::from_secs(1_000_000);
        assert!(!support.is_due(much_later));
        support.recovered();
        assert!(support.is_due(now));
        assert_eq!(support.takes(), Some(true), "until it has answered");
    }

    #[test]
    fn an_endpoint_that_refuses_is_asked_ever_more_rarely() {
        let mut now = Instant::now();
        let mut support = V1Support::default();
        for expected_secs in [600, 1_200, 2_400, 4_800] {
            support.record(V1Answer::Refuses, now);
            assert_eq!(support.takes(), Some(false));
            let due = now + Duration::from_secs(expected_secs);
            assert!(!support.is_due(due - Duration::from_secs(1)));
            assert!(support.is_due(due));
            // It takes the question, and refuses the transactions.
            support.record(V1Answer::Takes, due);
            now = due;
        }
    }

    #[test]
    fn no_answer_changes_nothing_that_is_known() {
        let now = Instant::now();
        let mut support = V1Support::default();
        support.record(V1Answer::Nothing, now);
        assert_eq!(support.takes(), None);
        assert!(!support.is_due(now));
        assert!(support.is_due(now + Duration::from_secs(30)));
        support.record(V1Answer::Takes, now);
        support.record(V1Answer::Nothing, now);
        assert_eq!(support.takes(), Some(true));
    }
}
