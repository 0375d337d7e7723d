//! The pause after a refusal for too many calls: an endpoint gets no calls for the time that its answer requests, or, if it
//! names none, for a time that grows from refusal to refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use solana_client::client_error::{ClientError, ClientErrorKind};
use thiserror::Error;

use crate::domain::{Backoff, Jitter};

/// Pauses after refusals in a row that name no time. Providers count calls by second, by ten seconds or by minute: the first pause
/// fits the shortest, the cap half of the longest.
const PAUSE_BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(30))
    .with_jitter(Jitter::between(100, 120));
/// An endpoint that requests more is called again after this: a nonsensical header must not exclude it indefinitely.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// When the pause of an endpoint ends. It can only be extended.
#[derive(Debug, Default)]
pub(in crate::chain) struct RateLimitPause(Mutex<PauseState>);

#[derive(Debug, Default)]
struct PauseState {
    ends_at: Option<Instant>,
    /// In a row.
    refusals: u32,
}

impl RateLimitPause {
    fn state(&self) -> MutexGuard<'_, PauseState> {
        // Every change is a single assignment: a panic leaves no half-made change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rest of the pause; `None`: the endpoint may be called.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.state()
            .ends_at
            .map(|ends_at| ends_at.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// The pause lasts at least this long from now.
    pub fn extend(&self, pause: Duration, now: Instant) {
        let mut state = self.state();
        state.ends_at = state.ends_at.max(Some(now + pause));
    }

    /// A call was refused. Returns how long the pause is: what the answer requested, else longer from refusal to refusal.
    pub fn refused(&self, requested: Option<Duration>, now: Instant) -> Duration {
        let pause = {
            let mut state = self.state();
            // Calls that were under way when the pause began are refused too: they say nothing new.
            if state.ends_at.is_none_or(|ends_at| ends_at <= now) {
                state.refusals = state.refusals.saturating_add(1);
            }
            requested.unwrap_or_else(|| PAUSE_BACKOFF.delay(state.refusals, rand::random()))
        };
        self.extend(pause, now);
        pause
    }

    /// A call was answered: the next pause without a requested time is a short one again.
    pub fn answered(&self) {
        self.state().refusals = 0;
    }
}

/// A call that was not made, or was answered 429. Travels through solana-client inside [`ClientErrorKind::Middleware`].
#[derive(Clone, Copy, Debug, Error)]
#[error("no more calls for {wait:?}")]
struct RateLimited {
    wait: Duration,
}

/// The error of a call to an endpoint that accepts no calls for this long.
pub(super) fn rate_limited(wait: Duration) -> ClientError {
    ClientErrorKind::Middleware(RateLimited { wait }.into()).into()
}

/// How long the endpoint accepts no calls, if that is what the error reports.
pub(in crate::chain) fn pause_of(error: &ClientError) -> Option<Duration> {
    match error.kind() {
        ClientErrorKind::Middleware(error) => {
            error.downcast_ref::<RateLimited>().map(|error| error.wait)
        }
        _ => None,
    }
}

/// The time that the header Retry-After of a response names.
pub(super) fn requested_pause(headers: &HeaderMap) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER)?;
    retry_after(header.to_str().ok()?, Utc::now())
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = header.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    let requested = seconds.or_else(|| {
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        Some((date.to_utc() - now).to_std().unwrap_or_default())
    });
    requested.map(|requested| requested.min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_its_time_is_over_and_never_earlier_than_requested() {
        let (pause, now) = (RateLimitPause::default(), Instant::now());
        assert_eq!(pause.remaining(now), None);
        pause.extend(Duration::from_secs(10), now);
        pause.extend(Duration::from_secs(2), now);
        assert_eq!(pause.remaining(now), Some(Duration::from_secs(10)));
        let later = now + Duration::from_millis(9_999);
        assert_eq!(pause.remaining(later), Some(Duration::from_millis(1)));
        assert_eq!(pause.remaining(now + Duration::from_secs(10)), None);
    }

    #[test]
    fn the_pause_is_preserved_in_the_clients_error() {
        let wait = Duration::from_secs(9);
        assert_eq!(pause_of(&rate_limited(wait)), Some(wait));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-25T04:00:00Z".parse().unwrap();
        for (header, secs) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("0", Some(0)),
            ("Wed, 25 Nov 2026 04:00:30 GMT", Some(30)),
            ("Wed, 25 Nov 2026 03:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("999999999", Some(3_600)),
        ] {
            let expected = secs.map(Duration::from_secs);
            assert_eq!(retry_after(header, now), expected, "{header:?}");
        }
    }

    #[test]
    fn refusals_in_a_row_that_name_no_time_pause_longer_and_longer() {
        let (pause, mut now) = (RateLimitPause::default(), Instant::now());
        for secs in [1, 2, 4, 8, 16, 30, 30] {
            let (least, most) = (Duration::from_secs(secs), Duration::from_secs(secs) * 6 / 5);
            let paused = pause.refused(None, now);
            assert!((least..=most).contains(&paused), "{secs} s: {paused:?}");
            // Another call was under way: it does not count as the next in a row.
            pause.refused(None, now + paused / 2);
            now += Duration::from_secs(120);
        }
        pause.answered();
        assert!(pause.refused(None, now) < Duration::from_secs(2));
        now += Duration::from_secs(60);
        let named = Duration::from_secs(9);
        assert_eq!(pause.refused(Some(named), now), named);
    }
}
