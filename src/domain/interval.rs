//! The span of time that a reading pays.

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use thiserror::Error;

/// The time `[start, end)` in whole microseconds, 1 minute to 24 hours long. Intervals that touch do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// Why two moments are no interval of a reading.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IntervalError {
    #[error("the interval from {0} to {0} is empty: its start must be before its end", shown(*.at))]
    Empty { at: DateTime<Utc> },
    #[error("the interval from {} to {} ends before it starts", shown(*.start), shown(*.end))]
    Reversed {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("the interval from {} to {} is shorter than 1 minute", shown(*.start), shown(*.end))]
    TooShort {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("the interval from {} to {} is longer than 24 hours; split it", shown(*.start), shown(*.end))]
    TooLong {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("{} is not a whole number of microseconds, or lies in a leap second", shown(*.at))]
    SubMicrosecond { at: DateTime<Utc> },
}

impl Interval {
    pub const MIN: TimeDelta = TimeDelta::minutes(1);
    pub const MAX: TimeDelta = TimeDelta::hours(24);

    /// Both limits of the length are allowed lengths.
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Interval, IntervalError> {
        for at in [start, end] {
            // Nanoseconds past 10^9 are chrono's way to write a leap second.
            if !at.nanosecond().is_multiple_of(1_000) || at.nanosecond() >= 1_000_000_000 {
                return Err(IntervalError::SubMicrosecond { at });
            }
        }
        if start == end {
            return Err(IntervalError::Empty { at: start });
        }
        if start > end {
            return Err(IntervalError::Reversed { start, end });
        }
        if end - start < Interval::MIN {
            return Err(IntervalError::TooShort { start, end });
        }
        if end - start > Interval::MAX {
            return Err(IntervalError::TooLong { start, end });
        }
        Ok(Interval { start, end })
    }

    /// The first moment of it.
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The first moment after it.
    pub fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// Microseconds since 1970.
    pub fn start_micros(&self) -> i64 {
        self.start.timestamp_micros()
    }

    /// Microseconds since 1970.
    pub fn end_micros(&self) -> i64 {
        self.end.timestamp_micros()
    }

    pub fn duration(&self) -> TimeDelta {
        self.end - self.start
    }

    /// Whether some moment belongs to both.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// ISO 8601: `start/end`.
impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", shown(self.start), shown(self.end))
    }
}

fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
