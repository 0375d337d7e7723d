//! The pause before a refused reading is retried.

use std::time::Duration;

use crate::config::TokenizationConfig;

/// The configured exponential backoff, counted in the reading's own attempts.
#[derive(Clone, Debug)]
pub struct RetrySchedule {
    config: TokenizationConfig,
}

impl RetrySchedule {
    pub fn new(config: TokenizationConfig) -> RetrySchedule {
        RetrySchedule { config }
    }

    /// The delay after the `attempts`-th refusal (1 = the first), or `None` when no attempt is left. `jitter` is uniform in
    /// `0.0..1.0` and spreads readings that were refused together by a fifth in both directions.
    pub fn delay_after(&self, attempts: u32, jitter: f64) -> Option<Duration> {
        if attempts == 0 || attempts > u32::from(self.config.max_retry_attempts) {
            return None;
        }
        Some(self.config.retry_backoff().delay(attempts, jitter))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;

    fn schedule(flags: &[&str]) -> RetrySchedule {
        let config = Config::from_flags(flags.iter().copied()).expect("flags within range");
        RetrySchedule::new(config.tokenization)
    }

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        let schedule = schedule(&["--tokenization-max-retry-delay-secs=1000"]);
        let delays: Vec<_> = (1..=4)
            .map(|attempts| {
                schedule
                    .delay_after(attempts, 0.5)
                    .map(|delay| delay.as_secs())
            })
            .collect();
        assert_eq!(delays, [Some(300), Some(600), Some(1000), None]);
    }

    #[test]
    fn without_retries_the_first_refusal_is_the_last() {
        let none = schedule(&["--tokenization-max-retry-attempts=0"]);
        assert_eq!(none.delay_after(1, 0.5), None);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(attempts in 1_u32..=3, jitter in 0.0..1.0_f64) {
            let schedule = schedule(&[]);
            let exact = schedule.delay_after(attempts, 0.5).expect("within the schedule").as_secs_f64();
            let jittered = schedule.delay_after(attempts, jitter).expect("within the schedule").as_secs_f64();
            prop_assert!((jittered - exact).abs() <= exact * 0.2 + 1e-6);
        }
    }
}
