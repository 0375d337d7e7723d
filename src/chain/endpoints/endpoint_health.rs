//! The health of an endpoint compared with the others: pure.
//!
//! An endpoint is *behind* when two probes in a row found it far below the highest height, and until it has nearly caught up:
//! with a single threshold, a node that oscillates around it would be left and preferred in turn.

use std::time::{Duration, Instant};

use crate::chain::error::{ChainError, ProbeFailure};

/// Blocks below the highest height that make an endpoint suspected of lagging, whatever a block lasts: a blockhash lives 150
/// blocks, and one of such an endpoint has lost an eighth of them.
const BEHIND_BLOCKS: u64 = 20;
/// Blocks below the highest height at which it counts as caught up.
const CAUGHT_UP_BLOCKS: u64 = 5;
/// Probes in a row that must show it: two endpoints are never probed at the same instant.
const PROBES_TO_BE_BEHIND: u32 = 2;
/// Time for which the highest height that was ever reported counts. With one endpoint it is the only measure of a node that went
/// back; an endpoint that reported nonsense must not make the others count as behind indefinitely.
const HIGHEST_COUNTS_FOR: Duration = Duration::from_secs(600);

/// Time for which an endpoint that gave a strange answer, or refused a method, comes after the others. Probes do not show whether
/// it has stopped doing so.
const DISTRUSTED_FOR: Duration = Duration::from_secs(60);

/// The result of one probe of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    Height {
        height: u64,
        /// The node itself reports that it is behind, and by how many slots.
        reports_behind: Option<u64>,
    },
    /// It did not answer, or is on another chain.
    NoAnswer(ChainError),
    /// It was not probed, or answered 429: it gets no calls for this long.
    RateLimited(Duration),
}

/// The health of one endpoint, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(in crate::chain) struct EndpointHealth {
    pub height: Option<u64>,
    pub lag_blocks: Option<u64>,
    pub behind: bool,
    /// The failure for which it counts as failed.
    pub failure: Option<ProbeFailure>,
    /// Since when it has answered and not been behind.
    pub healthy_since: Option<Instant>,
    /// Its genesis hash was checked, and it has answered ever since.
    pub is_on_our_chain: bool,
    /// When it was last queried for the consensus of its cluster, if it has answered ever since.
    pub consensus_asked_at: Option<Instant>,
    /// The last answer that could not be used, and when it came. It does not make the endpoint fail: other calls may succeed.
    pub strange_answer: Option<(ChainError, Instant)>,
    /// In a row.
    far_probes: u32,
}

impl EndpointHealth {
    /// Whether it answered and is not behind. An endpoint that was never probed counts as healthy.
    pub fn is_healthy(&self) -> bool {
        self.failure.is_none() && !self.behind
    }

    /// Whether no recent answer of it was strange.
    pub fn is_trusted(&self, now: Instant) -> bool {
        let strange_at = self.strange_answer.as_ref().map(|(_, at)| *at);
        strange_at.is_none_or(|at| now.duration_since(at) >= DISTRUSTED_FOR)
    }

    /// Whether one more probe will show whether it is behind.
    pub fn is_in_doubt(&self) -> bool {
        !self.behind && self.far_probes > 0
    }

    /// Records one probe; `highest` is the highest height that any endpoint reported.
    pub(super) fn record(&mut self, probe: ProbeResult, highest: u64, now: Instant) {
        match probe {
            ProbeResult::Height {
                height,
                reports_behind,
            } => {
                let lag_blocks = highest
                    .saturating_sub(height)
                    .max(reports_behind.unwrap_or_default());
                self.height = Some(height);
                self.lag_blocks = Some(lag_blocks);
                self.failure = None;
                self.record_lag(lag_blocks, reports_behind);
            }
            ProbeResult::NoAnswer(error) => {
                self.failure = Some(ProbeFailure::NoHeight(Box::new(error)));
                self.lag_blocks = None;
                self.forget_chain();
            }
            // Nothing new is known: it stays as healthy or unhealthy as it was.
            ProbeResult::RateLimited(_) => {}
        }
        self.healthy_since = if self.is_healthy() {
            self.healthy_since.or(Some(now))
        } else {
            None
        };
    }

    fn record_lag(&mut self, lag_blocks: u64, reports_behind: Option<u64>) {
        if lag_blocks >= BEHIND_BLOCKS || reports_behind.is_some() {
            self.far_probes += 1;
            self.behind |= self.far_probes >= PROBES_TO_BE_BEHIND;
        } else if lag_blocks <= CAUGHT_UP_BLOCKS {
            self.far_probes = 0;
            self.behind = false;
        } else if !self.behind {
            self.far_probes = 0;
        }
    }

    /// A call to it failed since the last probe: it counts as failed if the error is the endpoint's, and else as distrusted.
    pub(super) fn note_failed_call(&mut self, error: &ChainError, now: Instant) {
        self.forget_chain();
        if error.is_of_endpoint() {
            self.failure = Some(ProbeFailure::CallFailed(Box::new(error.clone())));
            self.healthy_since = None;
        } else {
            self.strange_answer = Some((error.clone(), now));
        }
    }

    /// It may return as a node of another cluster, or of one that has migrated meanwhile.
    fn forget_chain(&mut self) {
        self.is_on_our_chain = false;
        self.consensus_asked_at = None;
    }
}

/// The highest height that any endpoint reported.
#[derive(Debug, Default)]
pub(super) struct HighestHeight(Option<(u64, Instant)>);

impl HighestHeight {
    /// Records one probe of each endpoint and returns the highest height that counts now; 0 before any was reported.
    pub fn record(&mut self, probes: &[ProbeResult], now: Instant) -> u64 {
        let reported = probes.iter().filter_map(|probe| match probe {
            ProbeResult::Height { height, .. } => Some(*height),
            ProbeResult::NoAnswer(_) | ProbeResult::RateLimited(_) => None,
        });
        if let Some(reported) = reported.max() {
            let keeps = self.0.is_some_and(|(height, at)| {
                height > reported && now.duration_since(at) < HIGHEST_COUNTS_FOR
            });
            if !keeps {
                self.0 = Some((reported, now));
            }
        }
        self.0.map_or(0, |(height, _)| height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chain::error_reason::{NoAnswer, UnusableAnswer};

    fn no_answer() -> ProbeResult {
        ProbeResult::NoAnswer(time_out())
    }

    fn time_out() -> ChainError {
        ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "getSlot",
            reason: NoAnswer::TimedOut,
        }
    }

    fn strange() -> ChainError {
        ChainError::Unusable {
            endpoint: "rpc-1".to_owned(),
            reason: UnusableAnswer::AccountData,
        }
    }

    fn at(height: u64) -> ProbeResult {
        ProbeResult::Height {
            height,
            reports_behind: None,
        }
    }

    #[test]
    fn two_lagging_probes_in_a_row_mark_an_endpoint_as_behind_until_it_has_caught_up() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        health.record(at(980), 1_000, now);
        assert!(health.is_healthy() && health.is_in_doubt());
        health.record(at(981), 1_001, now);
        assert!(!health.is_healthy());
        assert_eq!(health.lag_blocks, Some(20));
        // Nearer, but not there yet: still behind.
        health.record(at(990), 1_000, now);
        assert!(!health.is_healthy());
        health.record(at(995), 1_000, now);
        assert!(health.is_healthy());
        // A single far probe after that is a doubt again.
        health.record(at(900), 1_000, now);
        assert!(health.is_healthy());
        health.record(at(990), 1_000, now);
        health.record(at(900), 1_000, now);
        assert!(health.is_healthy(), "the probes were not in a row");
    }

    #[test]
    fn the_chain_of_an_endpoint_that_failed_is_checked_again() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        let fails: [fn(&mut EndpointHealth); 3] = [
            |health| health.record(no_answer(), 10, Instant::now()),
            |health| health.note_failed_call(&time_out(), Instant::now()),
            |health| health.note_failed_call(&strange(), Instant::now()),
        ];
        for fails in fails {
            health.is_on_our_chain = true;
            health.record(at(10), 10, now);
            health.record(ProbeResult::RateLimited(Duration::from_secs(3)), 10, now);
            assert!(health.is_on_our_chain);
            fails(&mut health);
            assert!(!health.is_on_our_chain);
        }
    }

    #[test]
    fn a_strange_answer_puts_an_endpoint_behind_the_others_for_a_minute_and_not_out_of_use() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        health.record(at(10), 10, now);
        health.note_failed_call(&strange(), now);
        assert!(health.is_healthy() && !health.is_trusted(now));
        assert!(health.is_trusted(now + DISTRUSTED_FOR));
        health.note_failed_call(&time_out(), now);
        assert!(!health.is_healthy());
    }

    #[test]
    fn a_node_that_reports_that_it_is_behind_counts_as_behind() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        for _ in 0..2 {
            let probe = ProbeResult::Height {
                height: 1_000,
                reports_behind: Some(300),
            };
            health.record(probe, 1_000, now);
        }
        assert!(!health.is_healthy());
        assert_eq!(health.lag_blocks, Some(300));
    }

    #[test]
    fn a_rate_limited_endpoint_keeps_its_health() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        health.record(at(10), 10, now);
        health.record(ProbeResult::RateLimited(Duration::from_secs(3)), 10, now);
        assert!(health.is_healthy());
        health.record(no_answer(), 10, now);
        assert!(!health.is_healthy());
        assert_eq!(health.healthy_since, None);
        health.record(at(10), 10, now);
        assert!(health.is_healthy());
    }

    #[test]
    fn the_highest_height_outlives_a_node_that_went_back_and_expires_in_the_end() {
        let (mut highest, now) = (HighestHeight::default(), Instant::now());
        assert_eq!(highest.record(&[at(1_000), at(900)], now), 1_000);
        assert_eq!(highest.record(&[at(500)], now), 1_000);
        let late = now + HIGHEST_COUNTS_FOR;
        assert_eq!(highest.record(&[at(600)], late), 600);
        assert_eq!(highest.record(&[no_answer()], late), 600);
    }

    proptest! {
        /// After any sequence: it changes sides only by two far probes in a row, or by a near one.
        #[test]
        fn it_does_not_flap(lags in prop::collection::vec(0_u64..40, 1..60)) {
            let (mut health, now) = (EndpointHealth::default(), Instant::now());
            let mut before: Option<u64> = None;
            for lag in lags {
                let was_behind = health.behind;
                health.record(at(1_000 - lag), 1_000, now);
                match (was_behind, health.behind) {
                    (false, true) => {
                        prop_assert!(lag >= BEHIND_BLOCKS);
                        prop_assert!(before.is_some_and(|lag| lag >= BEHIND_BLOCKS));
                    }
                    (true, false) => prop_assert!(lag <= CAUGHT_UP_BLOCKS),
                    _ => {}
                }
                before = Some(lag);
            }
        }
    }
}
