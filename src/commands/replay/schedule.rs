//! Schedules readings: when each was metered, and when the replay reports it.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use thiserror::Error;

/// Every row of the data file is half an hour.
pub const INTERVAL_MINUTES: u16 = 30;
const INTERVAL: TimeDelta = TimeDelta::minutes(INTERVAL_MINUTES as i64);
const DAY: TimeDelta = TimeDelta::hours(24);

/// The speed of meter time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times real time.
    Times(f64),
    /// As fast as the service accepts readings.
    Max,
}

impl Speed {
    /// A day in one minute: the fleet's 8,380 readings arrive at 140 a second on average, and the whole replay, finality
    /// included, takes well below two minutes.
    pub const DEFAULT: Speed = Speed::Times(1440.0);
}

/// A text that is not a speed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is neither a number above 0 nor \"max\"")]
pub struct NotASpeed(String);

impl FromStr for Speed {
    type Err = NotASpeed;

    fn from_str(text: &str) -> Result<Speed, NotASpeed> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
            _ => Err(NotASpeed(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Speed::Times(times) => write!(formatter, "{times}"),
            Speed::Max => formatter.write_str("max"),
        }
    }
}

/// Maps every real day to the same 24 hours: those that ended before the data directory's first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The moment to which a real day's midnight is mapped.
    midnight: DateTime<Utc>,
}

impl Calendar {
    /// The 24 hours end on the last half hour before `first_start`, so that intervals stay on half hours.
    pub fn before(first_start: DateTime<Utc>) -> Calendar {
        let interval_secs = INTERVAL.num_seconds();
        let past_secs = first_start.timestamp().rem_euclid(interval_secs);
        let whole_seconds =
            first_start - TimeDelta::nanoseconds(first_start.timestamp_subsec_nanos().into());
        Calendar {
            midnight: whole_seconds - TimeDelta::seconds(past_secs) - DAY,
        }
    }

    /// The interval's start and end.
    pub fn interval_of(&self, local_start: NaiveDateTime) -> (DateTime<Utc>, DateTime<Utc>) {
        let start = self.midnight + (local_start.time() - NaiveTime::MIN);
        (start, start + INTERVAL)
    }
}

/// How long after the replay's start a reading is reported: at the interval's end, plus this meter's share of the half hour
/// that follows. Real meters do not report in the same instant either.
pub fn due_after(
    speed: Speed,
    since_first_end: TimeDelta,
    meter_index: usize,
    meters: usize,
) -> Duration {
    let Speed::Times(times) = speed else {
        return Duration::ZERO;
    };
    // Some hundred meters: exact in an f64.
    let share = meter_index as f64 / meters.max(1) as f64;
    let meter_secs = since_first_end.as_seconds_f64() + share * INTERVAL.as_seconds_f64();
    Duration::try_from_secs_f64(meter_secs / times).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn local(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap()
    }

    #[test]
    fn every_real_day_becomes_the_24_hours_before_the_first_start() {
        let first_start = utc("2026-11-25T04:12:55.123456Z");
        let calendar = Calendar::before(first_start);

        for day in ["2011-07-01", "2012-02-29"] {
            let (first, _) = calendar.interval_of(local(&format!("{day} 00:00:00")));
            let (last, end) = calendar.interval_of(local(&format!("{day} 23:30:00")));
            assert_eq!(first, utc("2026-11-24T04:00:00Z"));
            assert_eq!(last, utc("2026-11-25T03:30:00Z"));
            assert_eq!(end, utc("2026-11-25T04:00:00Z"));
            assert!(end <= first_start);
        }
    }

    #[test]
    fn a_start_on_the_half_hour_ends_the_day_there() {
        let calendar = Calendar::before(utc("2026-11-25T04:30:00Z"));
        let (_, end) = calendar.interval_of(local("2011-07-01 23:30:00"));
        assert_eq!(end, utc("2026-11-25T04:30:00Z"));
    }

    #[test]
    fn a_day_takes_a_minute_by_default_and_no_time_at_most_speed() {
        let last = TimeDelta::hours(24) - TimeDelta::minutes(30);

        let due = due_after(Speed::DEFAULT, last, 365, 366);
        assert!(
            due > Duration::from_secs(59) && due < Duration::from_secs(60),
            "{due:?}"
        );
        assert_eq!(
            due_after(Speed::DEFAULT, TimeDelta::zero(), 0, 366),
            Duration::ZERO
        );
        assert_eq!(due_after(Speed::Max, last, 365, 366), Duration::ZERO);
    }

    #[test]
    fn a_speed_is_a_positive_number_or_max() {
        assert_eq!("60".parse(), Ok(Speed::Times(60.0)));
        assert_eq!("max".parse(), Ok(Speed::Max));
        for refused in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(refused.parse::<Speed>().is_err(), "{refused}");
        }
    }
}
