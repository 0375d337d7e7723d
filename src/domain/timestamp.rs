//! Parses RFC 3339 timestamps, to the microsecond and exactly.
//!
//! chrono's own parser accepts a leap second, a space for the `T`, and digits below a nanosecond, which it truncates. A reading's
//! end determines what is paid, so a timestamp is either held exactly as it was sent or rejected with the reason.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use thiserror::Error;

use super::excerpt::excerpt;

/// The years of a timestamp in UTC: from the epoch to the last year with four digits.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
/// The digits after the second that are kept.
const MICROSECOND_DIGITS: usize = 6;

/// A text that is not a timestamp which can be held exactly.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimestampError {
    #[error(
        "{text} is not an RFC 3339 timestamp with seconds and offset, such as 2026-03-01T12:15:00Z or 2026-03-01T13:15:00+01:00"
    )]
    NotRfc3339 { text: String },
    #[error("{text} has no offset from UTC; end it with Z or with +hh:mm")]
    NoOffset { text: String },
    #[error("{text} has the {field} {value}, which does not exist")]
    OutOfRange {
        text: String,
        field: &'static str,
        value: u32,
    },
    #[error(
        "{text} is a leap second, which this service cannot tell from the second after it; report :59 or the next :00"
    )]
    LeapSecond { text: String },
    #[error(
        "{text} is finer than a microsecond; it is not rounded, so report at most 6 digits after the second"
    )]
    SubMicrosecond { text: String },
    #[error("{text} lies outside of the years 1970 to 9999")]
    YearOutOfRange { text: String },
}

/// Parses an RFC 3339 timestamp with seconds and offset. `t` and `z` may be lower-case, as section 5.6 allows; digits after the
/// sixth must be zeros.
pub fn parse_timestamp(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    let shown = || excerpt(text);
    let malformed = || TimestampError::NotRfc3339 { text: shown() };
    let out_of_range = |field, value| TimestampError::OutOfRange {
        text: shown(),
        field,
        value,
    };

    let mut rest = Cursor(text.as_bytes());
    let fields = rest.date_and_time().ok_or_else(malformed)?;
    let micros = match rest.fraction().ok_or_else(malformed)? {
        Fraction::Micros(micros) => micros,
        Fraction::TooFine => return Err(TimestampError::SubMicrosecond { text: shown() }),
    };
    if rest.0.is_empty() {
        return Err(TimestampError::NoOffset { text: shown() });
    }
    let offset = rest.offset().ok_or_else(malformed)?;

    let [year, month, day, hour, minute, second] = fields;
    let [offset_hours, offset_minutes] = offset.hours_and_minutes;
    for (field, value, range) in [
        ("month", month, 1..=12),
        ("day", day, 1..=31),
        ("hour", hour, 0..=23),
        ("minute", minute, 0..=59),
        ("second", second, 0..=60),
        ("offset hour", offset_hours, 0..=23),
        ("offset minute", offset_minutes, 0..=59),
    ] {
        if !range.contains(&value) {
            return Err(out_of_range(field, value));
        }
    }
    if second == 60 {
        return Err(TimestampError::LeapSecond { text: shown() });
    }
    let date = i32::try_from(year)
        .ok()
        .and_then(|year| NaiveDate::from_ymd_opt(year, month, day))
        .ok_or_else(|| out_of_range("day", day))?;
    let local = date
        .and_hms_micro_opt(hour, minute, second, micros)
        .ok_or_else(malformed)?;
    let behind_utc =
        i64::from(offset_hours * 60 + offset_minutes) * if offset.west { 1 } else { -1 };
    let utc = (local + TimeDelta::minutes(behind_utc)).and_utc();
    if !YEARS.contains(&utc.year()) {
        return Err(TimestampError::YearOutOfRange { text: shown() });
    }
    Ok(utc)
}

struct Offset {
    west: bool,
    hours_and_minutes: [u32; 2],
}

enum Fraction {
    Micros(u32),
    TooFine,
}

/// The rest of the text. Each step consumes its part from the front, or returns `None`.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// `YYYY-MM-DDThh:mm:ss`
    fn date_and_time(&mut self) -> Option<[u32; 6]> {
        let year = self.digits(4)?;
        self.one_of(b"-")?;
        let month = self.digits(2)?;
        self.one_of(b"-")?;
        let day = self.digits(2)?;
        self.one_of(b"Tt")?;
        let hour = self.digits(2)?;
        self.one_of(b":")?;
        let minute = self.digits(2)?;
        self.one_of(b":")?;
        let second = self.digits(2)?;
        Some([year, month, day, hour, minute, second])
    }

    /// `.d…`, or nothing.
    fn fraction(&mut self) -> Option<Fraction> {
        if self.one_of(b".").is_none() {
            return Some(Fraction::Micros(0));
        }
        let length = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let (kept, finer) = digits.split_at(length.min(MICROSECOND_DIGITS));
        if kept.is_empty() {
            return None;
        }
        if finer.iter().any(|digit| *digit != b'0') {
            return Some(Fraction::TooFine);
        }
        let zeros = std::iter::repeat_n(&b'0', MICROSECOND_DIGITS - kept.len());
        Some(Fraction::Micros(number(kept.iter().chain(zeros))))
    }

    /// `Z`, `+hh:mm` or `-hh:mm`, and then the end of the text.
    fn offset(&mut self) -> Option<Offset> {
        let sign = self.one_of(b"Zz+-")?;
        let hours_and_minutes = if matches!(sign, b'Z' | b'z') {
            [0, 0]
        } else {
            let hours = self.digits(2)?;
            self.one_of(b":")?;
            [hours, self.digits(2)?]
        };
        self.0.is_empty().then_some(Offset {
            west: sign == b'-',
            hours_and_minutes,
        })
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        Some(number(digits))
    }

    fn one_of(&mut self, allowed: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !allowed.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }
}

/// At most nine ASCII digits as a number.
fn number<'a>(digits: impl IntoIterator<Item = &'a u8>) -> u32 {
    digits
        .into_iter()
        .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, SecondsFormat};
    use proptest::prelude::*;

    use super::*;

    fn micros(text: &str) -> i64 {
        parse_timestamp(text)
            .unwrap_or_else(|error| panic!("{error}"))
            .timestamp_micros()
    }

    #[test]
    fn one_moment_has_many_texts() {
        let noon = micros("2026-03-01T12:00:00Z");
        for text in [
            "2026-03-01t12:00:00z",
            "2026-03-01T12:00:00+00:00",
            "2026-03-01T12:00:00-00:00",
            "2026-03-01T12:00:00.0Z",
            "2026-03-01T12:00:00.000000000000Z",
            "2026-03-01T13:00:00+01:00",
            "2026-03-02T11:59:00+23:59",
            "2026-02-28T12:01:00-23:59",
            "2026-03-01T06:15:00-05:45",
        ] {
            assert_eq!(micros(text), noon, "{text}");
        }
        assert_eq!(micros("1970-01-01T00:00:00.000001Z"), 1);
        assert_eq!(micros("1970-01-01T00:00:00.1Z"), 100_000);
        assert_eq!(micros("2024-02-29T00:00:00Z"), 1_709_164_800_000_000);
    }

    #[test]
    fn missing_and_foreign_parts_are_rejected() {
        for text in [
            "",
            "now",
            "1767225600",
            "2026-03-01",
            "2026-03-01T12:00Z",
            "2026-03-01T12Z",
            "2026-03-01 12:00:00Z",
            "2026-3-1T12:00:00Z",
            "26-03-01T12:00:00Z",
            "+2026-03-01T12:00:00Z",
            "20260301T120000Z",
            "2026-W09-7T12:00:00Z",
            "2026-03-01T12:00:00,5Z",
            "2026-03-01T12:00:00.Z",
            "2026-03-01T12:00:00+01",
            "2026-03-01T12:00:00+0100",
            "2026-03-01T12:00:00 Z",
            "2026-03-01T12:00:00Z ",
            " 2026-03-01T12:00:00Z",
            "2026-03-01T12:00:00UTC",
            "2026-03-01T12:00:00Z[Europe/Berlin]",
            "2026-03-01T12:00:00−01:00",
            "２026-03-01T12:00:00Z",
        ] {
            assert!(
                matches!(
                    parse_timestamp(text),
                    Err(TimestampError::NotRfc3339 { .. })
                ),
                "{text:?}: {:?}",
                parse_timestamp(text)
            );
        }
        for text in ["2026-03-01T12:00:00", "2026-03-01T12:00:00.5"] {
            assert!(
                matches!(parse_timestamp(text), Err(TimestampError::NoOffset { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn the_field_that_is_out_of_range_is_named() {
        for (text, expected) in [
            ("2026-13-01T12:00:00Z", "has the month 13"),
            ("2026-00-01T12:00:00Z", "has the month 0"),
            ("2026-02-29T12:00:00Z", "has the day 29"),
            ("2026-04-31T12:00:00Z", "has the day 31"),
            ("2026-03-01T24:00:00Z", "has the hour 24"),
            ("2026-03-01T12:60:00Z", "has the minute 60"),
            ("2026-03-01T12:00:61Z", "has the second 61"),
            ("2026-03-01T12:00:00+24:00", "has the offset hour 24"),
            ("2026-03-01T12:00:00+01:60", "has the offset minute 60"),
            ("2016-12-31T23:59:60Z", "is a leap second"),
            ("2026-03-01T12:00:60Z", "is a leap second"),
            (
                "2026-03-01T12:00:00.0000001Z",
                "is finer than a microsecond",
            ),
            ("1969-12-31T23:59:59Z", "lies outside of the years"),
            ("1970-01-01T00:59:59+01:00", "lies outside of the years"),
            ("0000-01-01T00:00:00Z", "lies outside of the years"),
            ("9999-12-31T23:59:59-00:01", "lies outside of the years"),
        ] {
            let error = parse_timestamp(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text} {expected}")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_microsecond_is_parsed_back_from_every_offset(
            micros in 100_000_000_000_i64..253_402_200_000_000_000,
            offset in -1_439_i32..=1_439,
        ) {
            let moment = DateTime::from_timestamp_micros(micros).unwrap();
            let local = moment.with_timezone(&FixedOffset::east_opt(offset * 60).unwrap());
            prop_assume!((1970..=9999).contains(&local.year()));
            for digits in [SecondsFormat::Micros, SecondsFormat::Nanos, SecondsFormat::AutoSi] {
                let text = local.to_rfc3339_opts(digits, true);
                prop_assert_eq!(parse_timestamp(&text), Ok(moment));
            }
        }

        /// chrono accepts more texts, and gives the same moment for each that is accepted here.
        #[test]
        fn chrono_gives_the_same_moment(
            date in "[12][0-9]{3}-[01][0-9]-[0-3][0-9]",
            time in "[Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]",
            fraction in "(\\.[0-9]{1,9})?",
            offset in "([Zz]|[+-][0-2][0-9]:[0-6][0-9])?",
        ) {
            let text = format!("{date}{time}{fraction}{offset}");
            if let Ok(moment) = parse_timestamp(&text) {
                prop_assert_eq!(DateTime::parse_from_rfc3339(&text).unwrap(), moment);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), cut in 0_usize..30) {
            let _ = parse_timestamp(&text);
            let valid: String = "2026-03-01T12:00:00.123456+01:00".chars().take(cut).collect();
            let _ = parse_timestamp(&format!("{valid}{text}"));
        }
    }
}
