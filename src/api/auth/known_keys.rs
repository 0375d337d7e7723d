//! The identity provider's keys that are known, and when they are fetched next.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::published_keys::PublishedKeys;
use crate::telemetry::{Health, HealthPart};

/// Between two fetches while keys are known, so that tokens with invented key ids cannot make the service flood the provider.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

/// After a failed fetch while no key is known, when no token can be checked. Random, so that processes that started together
/// do not query the provider together.
pub(super) const RETRY_PAUSE_MS: Range<u64> = 4_000..6_000;

/// The keys are fetched again after this time even when every token names a known key: a withdrawn key is refused within ten
/// minutes, even when one fetch fails in between.
pub(super) const KEYS_AGE_MAX: Duration = Duration::from_secs(530);

/// The outcome of all fetches so far.
pub(super) struct Known {
    pub keys: PublishedKeys,
    /// Whether the newest fetch failed.
    pub is_failing: bool,
    /// No fetch before that, not even for a key that is not known.
    pub allowed_at: Instant,
    /// The next fetch, whether or not a token needs it.
    pub due_at: Instant,
}

impl Known {
    pub fn nothing() -> Known {
        let now = Instant::now();
        Known {
            keys: PublishedKeys::default(),
            is_failing: false,
            allowed_at: now,
            due_at: now,
        }
    }

    pub fn succeeded(&mut self, keys: PublishedKeys) {
        let now = Instant::now();
        self.keys = keys;
        self.is_failing = false;
        self.allowed_at = now + FETCH_INTERVAL;
        self.due_at = now + KEYS_AGE_MAX;
    }

    /// The old keys stay valid.
    pub fn failed(&mut self) {
        let pause = if self.keys.is_empty() {
            Duration::from_millis(rand::random_range(RETRY_PAUSE_MS))
        } else {
            FETCH_INTERVAL
        };
        self.is_failing = true;
        self.allowed_at = Instant::now() + pause;
        self.due_at = self.allowed_at;
    }

    pub fn report(&self, health: &Health) {
        if self.keys.is_empty() {
            health.unavailable(
                HealthPart::Tokens,
                "JWT_JWKS_URL has returned no keys yet, so no token can be checked; it is queried every few seconds, and \
                 the log says what is wrong",
            );
        } else if self.is_failing {
            health.degraded(
                HealthPart::Tokens,
                "JWT_JWKS_URL returns no keys at the moment: those known before stay valid, a new one is not known yet; \
                 the log says what is wrong",
            );
        } else {
            health.ok(HealthPart::Tokens);
        }
    }
}
