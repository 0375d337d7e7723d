//! Parses the members of a submission. What depends on the meter or the clock is checked later, in [`rules`](super::rules).

use chrono::{DateTime, Utc};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::error::Invalid;
use super::submission::{Member, Submission};
use crate::domain::{Interval, Kwh, MeterSerial, parse_timestamp};
use crate::meters::Meter;

/// Room for any signature in hex or base64.
const SIGNATURE_CHARACTERS_MAX: usize = 256;

const SERIAL_WANTED: &str = "the meter's serial, a string of 1 to 64 characters";
const KWH_WANTED: &str =
    "the interval's energy in kWh, a number or a decimal string such as \"1.25\"";
const TIMESTAMP_WANTED: &str =
    "an RFC 3339 timestamp with seconds and offset, such as \"2026-03-01T12:15:00Z\"";
const SIGNATURE_WANTED: &str = "a string";

/// A submission whose form is valid. Its value and its age are not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedReading {
    pub(super) serial: MeterSerial,
    pub(super) kwh: Kwh,
    pub(super) start: Option<DateTime<Utc>>,
    pub(super) end: DateTime<Utc>,
    pub(super) meter_signature: Option<String>,
}

impl ParsedReading {
    pub(super) fn parse(submission: &Submission) -> Result<ParsedReading, Invalid> {
        let parsed = ParsedReading {
            serial: serial_of(submission)?,
            kwh: kwh_of(submission)?,
            start: timestamp("interval_start", &submission.interval_start)?,
            end: timestamp("reading_timestamp", &submission.reading_timestamp)?.ok_or(
                Invalid::Missing {
                    member: "reading_timestamp",
                    wanted: TIMESTAMP_WANTED,
                },
            )?,
            meter_signature: signature_of(submission)?,
        };
        if let Some(start) = parsed.start {
            Interval::new(start, parsed.end)?;
        }
        Ok(parsed)
    }

    /// The reading's interval; without a start it has the meter's default length.
    pub(super) fn interval_for(&self, meter: &Meter) -> Result<Interval, Invalid> {
        let start = self.start.unwrap_or_else(|| self.end - meter.interval());
        Ok(Interval::new(start, self.end)?)
    }
}

/// The meter that a submission names. Parsed even if another member is invalid.
pub(super) fn serial_of(submission: &Submission) -> Result<MeterSerial, Invalid> {
    let text = text("meter_id", &submission.meter_id, SERIAL_WANTED)?;
    let text = text.ok_or(Invalid::Missing {
        member: "meter_id",
        wanted: SERIAL_WANTED,
    })?;
    Ok(MeterSerial::parse(text)?)
}

/// The energy that a submission reports. Parsed even if another member is invalid.
pub(super) fn kwh_of(submission: &Submission) -> Result<Kwh, Invalid> {
    match &submission.kwh_amount {
        Member::Text(text) | Member::Number(text) => Ok(Kwh::parse(text)?),
        Member::Missing => Err(Invalid::Missing {
            member: "kwh_amount",
            wanted: KWH_WANTED,
        }),
        Member::Other => Err(Invalid::Kind {
            member: "kwh_amount",
            wanted: KWH_WANTED,
        }),
    }
}

fn timestamp(member: &'static str, given: &Member) -> Result<Option<DateTime<Utc>>, Invalid> {
    let Some(text) = text(member, given, TIMESTAMP_WANTED)? else {
        return Ok(None);
    };
    parse_timestamp(text)
        .map(Some)
        .map_err(|error| Invalid::Timestamp { member, error })
}

fn signature_of(submission: &Submission) -> Result<Option<String>, Invalid> {
    let Some(text) = text(
        "meter_signature",
        &submission.meter_signature,
        SIGNATURE_WANTED,
    )?
    else {
        return Ok(None);
    };
    let characters = text.chars().count();
    if !(1..=SIGNATURE_CHARACTERS_MAX).contains(&characters) {
        return Err(Invalid::SignatureLength { characters });
    }
    match text.chars().find(|character| !is_printable(*character)) {
        Some(character) => Err(Invalid::SignatureCharacter { character }),
        None => Ok(Some(text.to_owned())),
    }
}

fn is_printable(character: char) -> bool {
    match character.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Mark
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => true,
        GeneralCategoryGroup::Separator => character == ' ',
        GeneralCategoryGroup::Other => false,
    }
}

fn text<'a>(
    member: &'static str,
    given: &'a Member,
    wanted: &'static str,
) -> Result<Option<&'a str>, Invalid> {
    match given {
        Member::Text(text) => Ok(Some(text)),
        Member::Missing => Ok(None),
        Member::Number(_) | Member::Other => Err(Invalid::Kind { member, wanted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ParsedReading, String> {
        let submission = serde_json::from_str(json).unwrap();
        ParsedReading::parse(&submission).map_err(|invalid| invalid.to_string())
    }

    fn with(member: &str, value: &str) -> Result<ParsedReading, String> {
        let mut members = serde_json::json!({
            "meter_id": "m-1",
            "kwh_amount": "1.25",
            "reading_timestamp": "2026-03-01T12:15:00Z",
        });
        members[member] = serde_json::from_str(value).unwrap();
        read(&members.to_string())
    }

    #[test]
    fn a_parsed_reading_is_what_was_sent() {
        let parsed = read(
            r#"{"meter_id": "m-1", "kwh_amount": 1.250, "reading_timestamp": "2026-03-01T13:15:00.000001+01:00",
                "interval_start": "2026-03-01T12:00:00Z", "meter_signature": "a1 B2"}"#,
        )
        .unwrap();
        assert_eq!(parsed.serial.as_str(), "m-1");
        assert_eq!(parsed.kwh, Kwh::parse("1.25").unwrap());
        assert_eq!(
            parsed.end,
            parse_timestamp("2026-03-01T12:15:00.000001Z").unwrap()
        );
        assert_eq!(
            parsed.start,
            Some(parse_timestamp("2026-03-01T12:00:00Z").unwrap())
        );
        assert_eq!(parsed.meter_signature.as_deref(), Some("a1 B2"));
    }

    /// A member, a value that is refused, and the sentence.
    const REFUSED: [(&str, &str, &str); 17] = [
        (
            "meter_id",
            "null",
            "meter_id is missing; it is the meter's serial, a string of 1 to 64 characters",
        ),
        (
            "meter_id",
            "7",
            "meter_id must be the meter's serial, a string of 1 to 64 characters",
        ),
        (
            "meter_id",
            r#""""#,
            "meter_id is empty; a meter's serial has 1 to 64 characters",
        ),
        (
            "kwh_amount",
            "null",
            "kwh_amount is missing; it is the interval's energy in kWh, a number or a decimal string such as \"1.25\"",
        ),
        (
            "kwh_amount",
            "[1]",
            "kwh_amount must be the interval's energy in kWh, a number or a decimal string such as \"1.25\"",
        ),
        (
            "kwh_amount",
            "-1.5",
            "kwh_amount -1.5 is negative; a reading reports energy above 0 kWh",
        ),
        (
            "kwh_amount",
            "0.0",
            "kwh_amount 0.0 is zero; a reading reports energy above 0 kWh",
        ),
        (
            "kwh_amount",
            r#""abc""#,
            "kwh_amount abc is not a decimal number such as 1.25",
        ),
        (
            "reading_timestamp",
            "null",
            "reading_timestamp is missing; it is an RFC 3339 timestamp with seconds and offset, such as \"2026-03-01T12:15:00Z\"",
        ),
        (
            "reading_timestamp",
            "1772367300",
            "reading_timestamp must be an RFC 3339 timestamp with seconds and offset, such as \"2026-03-01T12:15:00Z\"",
        ),
        (
            "interval_start",
            r#""2026-03-01T12:15:00Z""#,
            "the interval from 2026-03-01T12:15:00Z to 2026-03-01T12:15:00Z is empty: its start must be before its end",
        ),
        (
            "interval_start",
            r#""2026-03-01T12:30:00Z""#,
            "the interval from 2026-03-01T12:30:00Z to 2026-03-01T12:15:00Z ends before it starts",
        ),
        (
            "interval_start",
            r#""2026-03-01T12:14:30Z""#,
            "the interval from 2026-03-01T12:14:30Z to 2026-03-01T12:15:00Z is shorter than 1 minute",
        ),
        (
            "interval_start",
            r#""2026-02-28T12:14:00Z""#,
            "the interval from 2026-02-28T12:14:00Z to 2026-03-01T12:15:00Z is longer than 24 hours; split it",
        ),
        ("meter_signature", "1", "meter_signature must be a string"),
        (
            "meter_signature",
            r#""""#,
            "meter_signature has 0 characters; give 1 to 256, or leave it out",
        ),
        (
            "meter_signature",
            r#""a\u0000b""#,
            "meter_signature holds the character U+0000; only printable characters are stored",
        ),
    ];

    #[test]
    fn each_error_names_the_member_and_its_value() {
        for (member, value, sentence) in REFUSED {
            assert_eq!(with(member, value), Err(sentence.to_owned()));
        }
    }

    #[test]
    fn a_signature_is_at_most_256_printable_characters() {
        assert!(with("meter_signature", &format!("\"{}\"", "é".repeat(256))).is_ok());
        assert!(with("meter_signature", &format!("\"{}\"", "e".repeat(257))).is_err());
        // U+202E reverses the writing direction of what follows.
        assert!(with("meter_signature", r#""a\u202eb""#).is_err());
    }
}
