//! How an endpoint stands beside the others: pure.
//!
//! An endpoint is *behind* when it was far below the highest height in two looks in a row, and until it has nearly caught
//! up: a node that swings around one threshold would be left and preferred in turn.

use std::time::{Duration, Instant};

/// Blocks below the highest height that make an endpoint suspected of lagging: eight seconds on the main network.
const BEHIND_BLOCKS: u64 = 20;
/// Blocks below the highest height at which it counts as caught up.
const CAUGHT_UP_BLOCKS: u64 = 5;
/// Looks in a row that must show it: two endpoints are never asked at the same instant.
const LOOKS_TO_BE_BEHIND: u32 = 2;
/// How long the highest height that was ever told counts. With one endpoint it is the only measure of a node that went
/// back; an endpoint that told nonsense must not shame the others for ever.
const HIGHEST_COUNTS_FOR: Duration = Duration::from_secs(600);

/// What one look at an endpoint gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeResult {
    Height {
        height: u64,
        /// The node itself said that it is behind, and by how many slots.
        says_behind: Option<u64>,
    },
    /// It did not answer, for this reason.
    NoAnswer(String),
    /// It was not asked: it wants no call for so long.
    RateLimited(Duration),
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointHealth {
    pub height: Option<u64>,
    pub lag_blocks: Option<u64>,
    pub behind: bool,
    /// Why it gave no height at the last look.
    pub failure: Option<String>,
    /// Since when it has answered and not been behind.
    pub healthy_since: Option<Instant>,
    /// It was asked for its chain, and has answered ever since.
    pub is_on_our_chain: bool,
    far_probes: u32,
}

impl EndpointHealth {
    /// Whether it is worth asking: it answered and is not behind. Nothing is held against one that was never looked at.
    pub fn is_healthy(&self) -> bool {
        self.failure.is_none() && !self.behind
    }

    /// Whether one more look will tell whether it is behind.
    pub fn is_in_doubt(&self) -> bool {
        !self.behind && self.far_probes > 0
    }

    /// Takes in one look; `highest` is the highest height that anybody told.
    pub fn take_in(&mut self, look: ProbeResult, highest: u64, now: Instant) {
        match look {
            ProbeResult::Height {
                height,
                says_behind,
            } => {
                let lag_blocks = highest
                    .saturating_sub(height)
                    .max(says_behind.unwrap_or_default());
                self.height = Some(height);
                self.lag_blocks = Some(lag_blocks);
                self.failure = None;
                self.judge(lag_blocks, says_behind.is_some());
            }
            ProbeResult::NoAnswer(reason) => {
                self.failure = Some(reason);
                self.lag_blocks = None;
                self.is_on_our_chain = false;
            }
            // It will be as good or bad as it was.
            ProbeResult::RateLimited(_) => {}
        }
        self.healthy_since = if self.is_healthy() {
            self.healthy_since.or(Some(now))
        } else {
            None
        };
    }

    fn judge(&mut self, lag_blocks: u64, says_behind: bool) {
        if lag_blocks >= BEHIND_BLOCKS || says_behind {
            self.far_probes += 1;
            self.behind |= self.far_probes >= LOOKS_TO_BE_BEHIND;
        } else if lag_blocks <= CAUGHT_UP_BLOCKS {
            self.far_probes = 0;
            self.behind = false;
        } else if !self.behind {
            self.far_probes = 0;
        }
    }

    /// A call to it failed since the last look.
    pub fn fail(&mut self, reason: String) {
        self.failure = Some(reason);
        self.healthy_since = None;
        self.is_on_our_chain = false;
    }
}

/// The highest height that any endpoint told.
#[derive(Debug, Default)]
pub(super) struct Highest(Option<(u64, Instant)>);

impl Highest {
    pub fn take_in(&mut self, looks: &[ProbeResult], now: Instant) -> u64 {
        let told = looks.iter().filter_map(|look| match look {
            ProbeResult::Height { height, .. } => Some(*height),
            ProbeResult::NoAnswer(_) | ProbeResult::RateLimited(_) => None,
        });
        if let Some(told) = told.max() {
            let keeps = self.0.is_some_and(|(height, at)| {
                height > told && now.duration_since(at) < HIGHEST_COUNTS_FOR
            });
            if !keeps {
                self.0 = Some((told, now));
            }
        }
        self.0.map_or(0, |(height, _)| height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(height: u64) -> ProbeResult {
        ProbeResult::Height {
            height,
            says_behind: None,
        }
    }

    #[test]
    fn one_far_look_is_a_doubt_and_two_are_a_lag_until_it_has_caught_up() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        health.take_in(at(980), 1_000, now);
        assert!(health.is_healthy() && health.is_in_doubt());
        health.take_in(at(981), 1_001, now);
        assert!(!health.is_healthy());
        assert_eq!(health.lag_blocks, Some(20));
        // Nearer, but not there yet: still behind.
        health.take_in(at(990), 1_000, now);
        assert!(!health.is_healthy());
        health.take_in(at(995), 1_000, now);
        assert!(health.is_healthy());
        // A single far look after that is a doubt again.
        health.take_in(at(900), 1_000, now);
        assert!(health.is_healthy());
        health.take_in(at(990), 1_000, now);
        health.take_in(at(900), 1_000, now);
        assert!(health.is_healthy(), "the looks were not in a row");
    }

    #[test]
    fn whoever_was_away_is_asked_for_its_chain_again() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        let goes_away: [fn(&mut EndpointHealth); 2] = [
            |health| {
                health.take_in(
                    ProbeResult::NoAnswer("time-out".to_owned()),
                    10,
                    Instant::now(),
                )
            },
            |health| health.fail("a call failed".to_owned()),
        ];
        for goes_away in goes_away {
            health.is_on_our_chain = true;
            health.take_in(at(10), 10, now);
            health.take_in(ProbeResult::RateLimited(Duration::from_secs(3)), 10, now);
            assert!(health.is_on_our_chain);
            goes_away(&mut health);
            assert!(!health.is_on_our_chain);
        }
    }

    #[test]
    fn a_node_that_says_it_is_behind_is_believed() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        for _ in 0..2 {
            let look = ProbeResult::Height {
                height: 1_000,
                says_behind: Some(300),
            };
            health.take_in(look, 1_000, now);
        }
        assert!(!health.is_healthy());
        assert_eq!(health.lag_blocks, Some(300));
    }

    #[test]
    fn an_endpoint_that_asked_to_be_left_alone_keeps_its_standing() {
        let (mut health, now) = (EndpointHealth::default(), Instant::now());
        health.take_in(at(10), 10, now);
        health.take_in(ProbeResult::RateLimited(Duration::from_secs(3)), 10, now);
        assert!(health.is_healthy());
        health.take_in(ProbeResult::NoAnswer("time-out".to_owned()), 10, now);
        assert!(!health.is_healthy());
        assert_eq!(health.healthy_since, None);
        health.take_in(at(10), 10, now);
        assert!(health.is_healthy());
    }

    #[test]
    fn the_highest_height_outlives_a_node_that_went_back_and_is_forgotten_in_the_end() {
        let (mut highest, now) = (Highest::default(), Instant::now());
        assert_eq!(highest.take_in(&[at(1_000), at(900)], now), 1_000);
        assert_eq!(highest.take_in(&[at(500)], now), 1_000);
        let late = now + HIGHEST_COUNTS_FOR;
        assert_eq!(highest.take_in(&[at(600)], late), 600);
        assert_eq!(
            highest.take_in(&[ProbeResult::NoAnswer("away".to_owned())], late),
            600
        );
    }

    proptest! {
        /// Whatever the sequence: it changes sides only by two far looks in a row, or by a near one.
        #[test]
        fn it_does_not_flap(lags in prop::collection::vec(0_u64..40, 1..60)) {
            let (mut health, now) = (EndpointHealth::default(), Instant::now());
            let mut before: Option<u64> = None;
            for lag in lags {
                let was_behind = health.behind;
                health.take_in(at(1_000 - lag), 1_000, now);
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
