//! Computes the wait after a failure before the next try: one exponential schedule for the whole service.
//!
//! Invariant: the delays of one [`Backoff`] never shrink from one failure to the next and, jitter aside, never exceed its
//! cap. For the n-th failure in a row, n = 1, 2, 3, …:
//!
//! ```text
//! delay(n) = min(first × multiplier^(n − 1), cap) × share
//! ```
//!
//! `share` is drawn uniformly from the bounds of the [`Jitter`], so that clients which failed together do not return
//! together. Jitter applies after the cap: a share above 100 % may exceed it. The type is pure: the caller passes the
//! random number.
//!
//! Everything that backs off exponentially uses this type, with these figures:
//!
//! | what waits | constant | first | cap | share |
//! |---|---|---|---|---|
//! | a refused reading, until its next attempt | `TokenizationConfig::retry_backoff` (settings; defaults here) | 300 s | 3,600 s | 80–120 % |
//! | a batch of submissions that lost a race to a concurrent one (`readings/batch_commit.rs`) | `RACE_BACKOFF` | 10 ms | 80 ms | 0–100 % |
//! | a deferred job (`queue/deferral.rs`), while its readings cannot be minted | `DEFERRAL` | 2 s | 60 s | 50–100 % |
//! | a batch that an outage keeps from minting (`queue/batch_slice.rs`) | `OUTAGE_BACKOFF` | 600 ms | 5 s | 100 % |
//! | the circuit breaker's next probe, chain unreachable or overloaded (`chain/breaker_state.rs`) | `CHAIN_BACKOFF` | 1 s | 30 s | 80–120 % |
//! | the circuit breaker's next probe, an operator must act (`chain/breaker_state.rs`) | `OPERATOR_BACKOFF` | 1 s | 4 s | 80–120 % |
//! | an endpoint that refused a call for too many calls and named no time (`chain/endpoints/rate_limit.rs`) | `PAUSE_BACKOFF` | 1 s | 30 s | 100–120 % |
//! | a call that gets no answer during a scan of the chain (`chain/history/call_retry.rs`) | `UNANSWERED_BACKOFF` | 250 ms | 1 s | 100 % |
//! | an endpoint that refused v1, until it is probed for v1 again (`chain/endpoints/v1_support.rs`) | `ASK_AGAIN` | 10 min | 1 day | 100 % |
//! | the history scan after a failure (`ledger/resolver/breaker_upkeep.rs`) | `SCAN_FAILURE_BACKOFF` | 2 s | 60 s | 100 % |
//! | the search for a proof that no endpoint could complete (`ledger/resolver/expiry.rs`) | `PROOF_BACKOFF` | 4 s | 15 min | 75–100 % |
//! | look-ups of a late transaction (`ledger/resolver/late_round.rs`) | `LOOK_UP_BACKOFF` | 2 s | 15 min; 10 s while it may still land or become final | 75–100 % |
//! | the answer of a trigger, between queries of its batch (`api/admin/trigger.rs`) | `POLL_BACKOFF` | 50 ms | 500 ms | 100 % |
//! | `listen` and the play, until they reconnect to the feed (`commands/follow.rs`) | `RECONNECT_BACKOFF` | 200 ms | 5 s | 50–100 % |
//! | the play's REST calls (`commands/replay/api_client.rs`) | `CALL_BACKOFF` | 100 ms | 5 s | 50–100 % |
//! | the play's poll of states while no event arrives (`commands/replay/settle.rs`) | `POLL_BACKOFF` | 5 s | 30 s | 100 % |
//! | the report of `run` (`commands/run.rs`) | `REPORT_BACKOFF` | 1 s | 10 s | 50–100 % |
//! | restarts of the local chain and database (`commands/local_stack.rs`) | `RESTART_BACKOFF` | 200 ms | 10 s | 50–100 % |
//!
//! The multiplier is 2 but for readings, where it is a setting. Waits that another party dictates (the header Retry-After)
//! and waits of constant length are not backoff.

use std::time::Duration;

use rust_decimal::Decimal;

/// Bounds of the share of a delay that is waited, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter {
    least_percent: u32,
    most_percent: u32,
}

impl Jitter {
    /// The whole delay, always.
    pub const NONE: Jitter = Jitter::between(100, 100);
    /// Half of the delay to all of it: spreads clients widely and never exceeds the cap.
    pub const HALF_TO_FULL: Jitter = Jitter::between(50, 100);

    /// From `least_percent` to `most_percent` of the delay; bounds in the wrong order count as one bound, the first.
    pub const fn between(least_percent: u32, most_percent: u32) -> Jitter {
        Jitter {
            least_percent,
            most_percent: if most_percent < least_percent {
                least_percent
            } else {
                most_percent
            },
        }
    }

    /// Up to `percent` less or more than the delay.
    pub const fn plus_minus(percent: u32) -> Jitter {
        Jitter::between(100_u32.saturating_sub(percent), 100 + percent)
    }

    /// `random` is uniform in `0.0..1.0`.
    fn apply(self, delay: Duration, random: f64) -> Duration {
        let least = delay.saturating_mul(self.least_percent) / 100;
        let most = delay.saturating_mul(self.most_percent) / 100;
        least + (most - least).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// An exponential schedule. The caller counts the failures, or lets [`Retries`] count them.
///
/// ```
/// use std::time::Duration;
/// use gridtokenx::domain::{Backoff, Jitter};
///
/// const RECONNECT: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5))
///     .with_jitter(Jitter::HALF_TO_FULL);
///
/// assert_eq!(RECONNECT.exact_delay(3), Duration::from_millis(800));
/// assert_eq!(RECONNECT.delay(3, 0.5), Duration::from_millis(600));
/// assert_eq!(RECONNECT.exact_delay(30), Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    multiplier: Decimal,
    cap: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// `first`, then twice the delay before, up to `cap`. Without jitter.
    pub const fn doubling(first: Duration, cap: Duration) -> Backoff {
        Backoff {
            first,
            multiplier: Decimal::TWO,
            cap,
            jitter: Jitter::NONE,
        }
    }

    /// Each delay is `multiplier` times the one before. Below 1 it counts as 1: delays do not shrink.
    pub const fn with_multiplier(self, multiplier: Decimal) -> Backoff {
        Backoff { multiplier, ..self }
    }

    pub const fn with_jitter(self, jitter: Jitter) -> Backoff {
        Backoff { jitter, ..self }
    }

    /// The delay after the `failure`-th failure in a row (1 is the first; 0 counts as 1) without jitter: whole
    /// milliseconds, rounded down, never above the cap.
    pub fn exact_delay(&self, failure: u32) -> Duration {
        let cap_ms = Decimal::from(millis(self.cap));
        let mut delay_ms = Decimal::from(millis(self.first));
        if self.multiplier > Decimal::ONE && !delay_ms.is_zero() {
            for _ in 1..failure {
                if delay_ms >= cap_ms {
                    break;
                }
                delay_ms = delay_ms.checked_mul(self.multiplier).unwrap_or(cap_ms);
            }
        }
        let delay_ms = delay_ms.min(cap_ms).trunc();
        Duration::from_millis(u64::try_from(delay_ms).unwrap_or(u64::MAX))
    }

    /// The delay after the `failure`-th failure in a row. `random` is uniform in `0.0..1.0` and picks the jitter.
    pub fn delay(&self, failure: u32, random: f64) -> Duration {
        self.jitter.apply(self.exact_delay(failure), random)
    }

    /// The longest delay that jitter can make of the `failure`-th.
    pub fn delay_max(&self, failure: u32) -> Duration {
        self.delay(failure, 1.0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts failures in a row for a loop that retries.
#[derive(Clone, Debug)]
pub struct Retries {
    backoff: Backoff,
    failures: u32,
}

impl Retries {
    pub const fn new(backoff: Backoff) -> Retries {
        Retries {
            backoff,
            failures: 0,
        }
    }

    /// Counts one more failure and returns the delay after it. `random` is uniform in `0.0..1.0`.
    pub fn next_delay(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, random)
    }

    /// After a success: the next failure is a first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIVE_SECS: Duration = Duration::from_secs(5);

    #[test]
    fn delays_double_up_to_the_cap() {
        let backoff = Backoff::doubling(Duration::from_millis(600), FIVE_SECS);
        let delays: Vec<u128> = (1..=6)
            .map(|failure| backoff.exact_delay(failure).as_millis())
            .collect();
        assert_eq!(delays, [600, 1_200, 2_400, 4_800, 5_000, 5_000]);
        assert_eq!(backoff.exact_delay(0), backoff.exact_delay(1));
        assert_eq!(backoff.exact_delay(u32::MAX), FIVE_SECS);
    }

    #[test]
    fn a_fractional_multiplier_is_exact_and_one_below_one_counts_as_one() {
        let backoff = Backoff::doubling(Duration::from_secs(300), Duration::from_secs(3_600));
        let slow = backoff.with_multiplier(Decimal::new(11, 1));
        assert_eq!(slow.exact_delay(3), Duration::from_secs(363));
        let shrinking = backoff.with_multiplier(Decimal::new(5, 1));
        assert_eq!(
            shrinking.exact_delay(u32::MAX),
            Duration::from_secs(300),
            "and a large count costs no time"
        );
    }

    #[test]
    fn retries_count_failures_in_a_row() {
        let mut retries = Retries::new(Backoff::doubling(Duration::from_millis(100), FIVE_SECS));
        assert_eq!(retries.failures(), 0);
        for expected_ms in [100, 200, 400] {
            assert_eq!(retries.next_delay(0.3), Duration::from_millis(expected_ms));
        }
        retries.reset();
        assert_eq!(retries.next_delay(0.3), Duration::from_millis(100));
        assert_eq!(retries.failures(), 1);
    }

    prop_compose! {
        fn backoffs()(
            first_ms in 0_u64..100_000,
            cap_ms in 0_u64..10_000_000,
            multiplier_percent in 50_i64..=10_000,
            least_percent in 0_u32..=100,
            most_percent in 100_u32..=200,
        ) -> Backoff {
            Backoff::doubling(Duration::from_millis(first_ms), Duration::from_millis(cap_ms))
                .with_multiplier(Decimal::new(multiplier_percent, 2))
                .with_jitter(Jitter::between(least_percent, most_percent))
        }
    }

    proptest! {
        #[test]
        fn delays_grow_up_to_the_cap_and_never_exceed_it(backoff in backoffs(), failure in 1_u32..60) {
            let delay = backoff.exact_delay(failure);
            let next = backoff.exact_delay(failure + 1);
            prop_assert!(delay <= next);
            prop_assert!(next <= backoff.cap);
            if delay < next {
                prop_assert!(backoff.multiplier > Decimal::ONE);
            }
        }

        #[test]
        fn jitter_stays_within_its_bounds(backoff in backoffs(), failure in 1_u32..60, random in -0.5..1.5_f64) {
            let exact = backoff.exact_delay(failure);
            let jittered = backoff.delay(failure, random);
            prop_assert!(jittered >= exact * backoff.jitter.least_percent / 100);
            prop_assert!(jittered <= exact * backoff.jitter.most_percent / 100);
            prop_assert!(jittered <= backoff.delay_max(failure));
        }

        #[test]
        fn without_jitter_the_random_number_changes_nothing(first_ms in 1_u64..1_000, failure in 1_u32..60, random in 0.0..1.0_f64) {
            let backoff = Backoff::doubling(Duration::from_millis(first_ms), FIVE_SECS);
            prop_assert_eq!(backoff.delay(failure, random), backoff.exact_delay(failure));
        }
    }
}
