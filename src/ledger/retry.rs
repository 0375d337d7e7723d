//! When a refused reading is tried again: the schedule as data.

use std::time::Duration;

/// Exponential backoff with a cap and jitter, counted by the reading's own attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySchedule {
    /// Refusals after which a reading is still tried again.
    pub max_retries: u32,
    pub initial_delay: Duration,
    pub multiplier: f64,
    pub max_delay: Duration,
}

/// Spread around the exact delay, so that readings refused together do not come back together.
const JITTER: f64 = 0.2;

impl RetrySchedule {
    /// The delay after the `attempts`-th refusal (1 = the first), or `None`: used up. `luck` is uniform in `0.0..1.0`.
    pub fn delay_after(&self, attempts: u32, luck: f64) -> Option<Duration> {
        if attempts == 0 || attempts > self.max_retries {
            return None;
        }
        let exact = self.initial_delay.as_secs_f64() * self.multiplier.powi(attempts as i32 - 1);
        let capped = exact.min(self.max_delay.as_secs_f64());
        Some(Duration::from_secs_f64(
            capped * (1.0 - JITTER + 2.0 * JITTER * luck.clamp(0.0, 1.0)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEDULE: RetrySchedule = RetrySchedule {
        max_retries: 3,
        initial_delay: Duration::from_secs(300),
        multiplier: 2.0,
        max_delay: Duration::from_secs(1000),
    };

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        let delays: Vec<_> = (1..=4)
            .map(|attempts| SCHEDULE.delay_after(attempts, 0.5).map(|delay| delay.as_secs()))
            .collect();
        assert_eq!(delays, [Some(300), Some(600), Some(1000), None]);
    }

    #[test]
    fn without_retries_the_first_refusal_is_the_last() {
        let none = RetrySchedule {
            max_retries: 0,
            ..SCHEDULE
        };
        assert_eq!(none.delay_after(1, 0.5), None);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(attempts in 1_u32..=3, luck in 0.0..1.0_f64) {
            let exact = SCHEDULE.delay_after(attempts, 0.5).expect("within the schedule").as_secs_f64();
            let jittered = SCHEDULE.delay_after(attempts, luck).expect("within the schedule").as_secs_f64();
            prop_assert!((jittered - exact).abs() <= exact * JITTER + 1e-9);
        }
    }
}
