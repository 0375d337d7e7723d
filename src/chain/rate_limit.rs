//! An endpoint that answered "too many requests" is left alone for as long as it asked for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// When 429 comes without Retry-After.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// A node that asks for more is looked at again after this: a nonsense header must not ban it for ever.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Closed until a moment; open otherwise. It only ever closes for longer.
#[derive(Debug, Default)]
pub(super) struct RateLimitPause(Mutex<Option<Instant>>);

impl RateLimitPause {
    /// How long no call may go to the endpoint; `None`: it may be called.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let opens_at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opens_at
            .map(|opens_at| opens_at.saturating_duration_since(now))
            .filter(|wait| !wait.is_zero())
    }

    pub fn extend(&self, pause: Duration, now: Instant) {
        let mut opens_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *opens_at = (*opens_at).max(Some(now + pause));
    }
}

/// What the header Retry-After asks for: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn pause_of(retry_after: Option<&str>, now: DateTime<Utc>) -> Duration {
    let asked = retry_after.map(str::trim).and_then(|text| {
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| {
            let date = DateTime::parse_from_rfc2822(text).ok()?;
            Some((date.to_utc() - now).to_std().unwrap_or_default())
        })
    });
    asked.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_when_its_time_is_over_and_never_earlier_than_was_asked() {
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
                pause_of(header, now),
                Duration::from_secs(secs),
                "{header:?}"
            );
        }
    }
}
