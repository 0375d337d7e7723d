//! Limits the requests of each subject.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// How often subjects whose burst is whole again are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Requests per minute and subject, with a burst of the same size. Counted per process: behind n processes a subject may
/// reach n times the limit. The limit protects each process, so that is enough.
pub struct RateLimiter {
    per_minute: NonZeroU32,
    governor: Governor<String, HashMapStateStore<String>, DefaultClock>,
}

impl RateLimiter {
    pub fn per_minute(per_minute: NonZeroU32) -> RateLimiter {
        RateLimiter {
            per_minute,
            governor: Governor::hashmap(Quota::per_minute(per_minute)),
        }
    }

    /// Counts one request of the subject, or refuses it with the time until the next one is allowed.
    pub fn check(&self, subject: &str) -> Result<(), Problem> {
        self.governor
            .check_key(&subject.to_owned())
            .map_err(|refused| {
                let wait = refused.wait_time_from(DefaultClock::default().now());
                Problem::new(
                    ProblemKind::RateLimited,
                    format!(
                        "more than {} requests a minute; wait, or send readings in bulk",
                        self.per_minute
                    ),
                )
                .retry_after(wait)
            })
    }

    /// Forgets subjects that have made no request for a while, so that memory is bounded by the active ones.
    pub fn forget_idle(&self) {
        self.governor.retain_recent();
        self.governor.shrink_to_fit();
    }
}

/// Forgets idle subjects on a period.
pub struct RateLimiterCleanup(pub Arc<RateLimiter>);

impl RateLimiterCleanup {
    pub fn task(self) -> PeriodicTask {
        PeriodicTask::new(Timing::new("rate limiter cleanup", FORGET_INTERVAL), self)
    }
}

impl Periodic for RateLimiterCleanup {
    async fn run(&mut self) -> Result<(), RunError> {
        self.0.forget_idle();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_its_own_limit_and_is_forgotten_once_its_burst_is_whole() {
        let limiter = RateLimiter::per_minute(NonZeroU32::new(2).unwrap());
        assert!(limiter.check("a").is_ok());
        assert!(limiter.check("a").is_ok());
        let refusal = limiter.check("a").unwrap_err();
        assert_eq!(refusal.kind(), ProblemKind::RateLimited);
        assert!(limiter.check("b").is_ok());
        limiter.forget_idle();
        assert!(limiter.check("a").is_err(), "a used-up limit is remembered");
        let fast = RateLimiter::per_minute(NonZeroU32::new(60_000).unwrap());
        assert!(fast.check("a").is_ok());
        std::thread::sleep(Duration::from_millis(20));
        fast.forget_idle();
        assert_eq!(fast.governor.len(), 0);
    }
}
