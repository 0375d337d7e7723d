//! How many requests one subject may make.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

use crate::api::problem::{Problem, ProblemKind};

/// How often subjects that have their whole share again are forgotten.
pub const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Requests per minute and subject, with a burst of the same size. Counted per process: behind n of them a subject may
/// reach n times the limit, which protects each process, and that is what it is for.
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

    /// Takes one request from the subject's share, or refuses with the time until the next is there.
    pub fn admit(&self, subject: &str) -> Result<(), Problem> {
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

    /// Forgets subjects that have not asked for a while, so that memory is bound by those who ask now.
    pub fn forget_idle(&self) {
        self.governor.retain_recent();
        self.governor.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_its_own_share_and_is_forgotten_once_it_is_whole() {
        let limiter = RateLimiter::per_minute(NonZeroU32::new(2).unwrap());
        assert!(limiter.admit("a").is_ok());
        assert!(limiter.admit("a").is_ok());
        let refusal = limiter.admit("a").unwrap_err();
        assert_eq!(refusal.kind(), ProblemKind::RateLimited);
        assert!(limiter.admit("b").is_ok());
        limiter.forget_idle();
        assert!(limiter.admit("a").is_err(), "a used-up share is remembered");
        let fast = RateLimiter::per_minute(NonZeroU32::new(60_000).unwrap());
        assert!(fast.admit("a").is_ok());
        std::thread::sleep(Duration::from_millis(20));
        fast.forget_idle();
        assert_eq!(fast.governor.len(), 0);
    }
}
