//! The pause after a 429: an endpoint that answers "too many requests" gets no calls for the time that its answer requests.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use solana_client::client_error::{ClientError, ClientErrorKind};
use thiserror::Error;

/// When 429 comes without Retry-After.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// An endpoint that requests more is called again after this: a nonsensical header must not exclude it indefinitely.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// When the pause of an endpoint ends. It can only be extended.
#[derive(Debug, Default)]
pub(in crate::chain) struct RateLimitPause(Mutex<Option<Instant>>);

impl RateLimitPause {
    /// How long the endpoint gets no calls; `None`: it may be called.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let ends_at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends_at
            .map(|ends_at| ends_at.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    /// The pause lasts at least this long from now.
    pub fn extend(&self, pause: Duration, now: Instant) {
        let mut ends_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *ends_at = (*ends_at).max(Some(now + pause));
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

/// The pause that a response requests: 429 always, and 503 with a Retry-After.
pub(super) fn requested_pause(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER);
    let is_requested = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => header.is_some(),
        _ => false,
    };
    is_requested.then(|| retry_after(header.and_then(|text| text.to_str().ok()), Utc::now()))
}

/// The pause of the header Retry-After: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(header: Option<&str>, now: DateTime<Utc>) -> Duration {
    let requested = header.map(str::trim).and_then(|text| {
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| {
            let date = DateTime::parse_from_rfc2822(text).ok()?;
            Some((date.to_utc() - now).to_std().unwrap_or_default())
        })
    });
    requested.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX)
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
            (Some("7"), 7),
            (Some(" 120 "), 120),
            (Some("0"), 0),
            (Some("Wed, 25 Nov 2026 04:00:30 GMT"), 30),
            (Some("Wed, 25 Nov 2026 03:00:00 GMT"), 0),
            (Some("soon"), 1),
            (Some("-5"), 1),
            (None, 1),
            (Some("999999999"), 3_600),
        ] {
            assert_eq!(
                retry_after(header, now),
                Duration::from_secs(secs),
                "{header:?}"
            );
        }
    }
}
