//! RFC 3339 timestamps, to the microsecond and exactly.
//!
//! chrono's own parser takes a leap second, a space for the `T`, and digits below a nanosecond, which it cuts off. A
//! reading's end is part of what is paid, so that a value is either held as it was sent or refused with the reason.

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use thiserror::Error;

use super::excerpt::excerpt;

/// Years that a timestamp may lie in, as UTC: from the epoch to the last year with four digits.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
/// Digits after the second that are kept.
const MICROSECOND_DIGITS: usize = 6;

/// Why a text is no moment that can be held.
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

/// Reads an RFC 3339 timestamp with seconds and offset. `t` and `z` may be lower-case, as section 5.6 allows; digits after
/// the sixth must be zeros.
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

/// What is left of the text. Every step takes what it knows from the front, or gives `None`.
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
