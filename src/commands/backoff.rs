//! Waits between two tries: doubled each time up to a limit, and scattered, so that many clients do not return at once.

use std::time::Duration;

use rand::Rng;

#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, limit: Duration) -> Backoff {
        Backoff {
            first,
            limit,
            next: first,
        }
    }

    /// Between one half and the whole of the step that is due.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.limit);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// After a success the next failure is a first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again() {
        let first = Duration::from_millis(100);
        let limit = Duration::from_millis(350);
        let mut backoff = Backoff::new(first, limit);

        for step_ms in [100, 200, 350, 350] {
            let wait = backoff.next_wait();
            let step = Duration::from_millis(step_ms);
            assert!(
                wait >= step / 2 && wait <= step,
                "{wait:?} for the step {step:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }
}
