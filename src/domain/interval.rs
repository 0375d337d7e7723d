//! The time span that a reading pays.

use std::fmt;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use thiserror::Error;

use super::rfc3339::rfc3339_shortest;

/// The time `[start, end)` in whole microseconds, 1 minute to 24 hours long. Adjacent intervals do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

/// Two moments that are not the interval of a reading.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IntervalError {
    #[error("the interval from {0} to {0} is empty: its start must be before its end", rfc3339_shortest(*.at))]
    Empty { at: DateTime<Utc> },
    #[error("the interval from {} to {} ends before it starts", rfc3339_shortest(*.start), rfc3339_shortest(*.end))]
    Reversed {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("the interval from {} to {} is shorter than 1 minute", rfc3339_shortest(*.start), rfc3339_shortest(*.end))]
    TooShort {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("the interval from {} to {} is longer than 24 hours; split it", rfc3339_shortest(*.start), rfc3339_shortest(*.end))]
    TooLong {
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    },
    #[error("{} is not a whole number of microseconds, or lies in a leap second", rfc3339_shortest(*.at))]
    SubMicrosecond { at: DateTime<Utc> },
}

impl Interval {
    pub const MIN: TimeDelta = TimeDelta::minutes(1);
    pub const MAX: TimeDelta = TimeDelta::hours(24);

    /// Both limits of the length are allowed lengths.
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Interval, IntervalError> {
        for at in [start, end] {
            // chrono represents a leap second by nanoseconds above 10^9.
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

    /// The first moment that belongs to it.
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

    /// Whether a moment belongs to both.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// ISO 8601: `start/end`.
impl fmt::Display for Interval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}",
            rfc3339_shortest(self.start),
            rfc3339_shortest(self.end)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    const MINUTE: i64 = 60_000_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    #[test]
    fn both_limits_of_the_length_are_allowed() {
        assert!(Interval::new(at(0), at(MINUTE)).is_ok());
        assert!(Interval::new(at(0), at(DAY)).is_ok());
        assert!(matches!(
            Interval::new(at(0), at(MINUTE - 1)),
            Err(IntervalError::TooShort { .. })
        ));
        assert!(matches!(
            Interval::new(at(0), at(DAY + 1)),
            Err(IntervalError::TooLong { .. })
        ));
        assert!(matches!(
            Interval::new(at(0), at(0)),
            Err(IntervalError::Empty { .. })
        ));
        assert!(matches!(
            Interval::new(at(1), at(0)),
            Err(IntervalError::Reversed { .. })
        ));
    }

    #[test]
    fn a_moment_finer_than_a_microsecond_is_rejected() {
        let fine = DateTime::from_timestamp_nanos(1);
        assert!(matches!(
            Interval::new(fine, at(MINUTE)),
            Err(IntervalError::SubMicrosecond { .. })
        ));
        let leap = DateTime::from_timestamp(59, 1_500_000_000).unwrap();
        assert!(matches!(
            Interval::new(leap, at(DAY)),
            Err(IntervalError::SubMicrosecond { .. })
        ));
    }

    #[test]
    fn adjacent_intervals_do_not_overlap() {
        let first = Interval::new(at(0), at(MINUTE)).unwrap();
        let second = Interval::new(at(MINUTE), at(2 * MINUTE)).unwrap();
        assert!(!first.overlaps(&second) && !second.overlaps(&first));
        assert!(first.overlaps(&first));
        assert_eq!(
            first.to_string(),
            "1970-01-01T00:00:00Z/1970-01-01T00:01:00Z"
        );
    }

    proptest! {
        /// In quarters of an hour, so that every moment can be checked.
        #[test]
        fn overlapping_is_having_a_moment_in_common(
            start in 0_i64..40,
            length in 1_i64..40,
            other in 0_i64..40,
            other_length in 1_i64..40,
        ) {
            let quarter = 15 * MINUTE;
            let span = |start: i64, length: i64| {
                Interval::new(at(start * quarter), at((start + length) * quarter)).unwrap()
            };
            let other_moments = other..other + other_length;
            let common = (start..start + length).any(|moment| other_moments.contains(&moment));
            prop_assert_eq!(span(start, length).overlaps(&span(other, other_length)), common);
        }

        #[test]
        fn micros_lead_back_to_the_same_moments(
            start in 0_i64..253_402_200_000_000_000,
            length in MINUTE..=DAY,
        ) {
            let interval = Interval::new(at(start), at(start + length)).unwrap();
            prop_assert_eq!(interval.start_micros(), start);
            prop_assert_eq!(interval.end_micros(), start + length);
            prop_assert_eq!(interval.duration().num_microseconds(), Some(length));
        }
    }
}
