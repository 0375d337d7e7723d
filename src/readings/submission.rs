//! A reading as it was sent, with its members exactly as they were written.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::Invalid;

/// A member of a JSON object, unchecked. A number keeps its own text, so no digit is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Member {
    /// Left out, or `null`.
    #[default]
    Missing,
    Text(String),
    Number(String),
    /// An object, an array, or a boolean: no member of a reading is one.
    Other,
}

/// From the raw text, because serde_json (with exact numbers) would also accept an object with its private key as a number.
impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Member, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(match raw.get().as_bytes().first() {
            Some(b'"') => {
                Member::Text(serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?)
            }
            Some(b'-' | b'0'..=b'9') => Member::Number(raw.get().to_owned()),
            Some(b'n') => Member::Missing,
            _ => Member::Other,
        })
    }
}

/// One reading as a caller sends it, for [`Intake`](super::Intake) to check. Unknown members are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Submission {
    /// The meter's serial.
    pub meter_id: Member,
    /// Energy of the interval, kWh: a number or a decimal string.
    pub kwh_amount: Member,
    /// The interval's end.
    pub reading_timestamp: Member,
    /// The end minus the meter's interval when left out.
    pub interval_start: Member,
    pub meter_signature: Member,
}

impl Submission {
    /// Parses one item of a bulk submission.
    pub fn from_json(json: &str) -> Result<Submission, Invalid> {
        // serde would also accept an array, member by member.
        if !json.trim_start().starts_with('{') {
            return Err(Invalid::NotAnObject);
        }
        serde_json::from_str(json).map_err(|error| Invalid::Json {
            text: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_not_an_object() {
        let array = r#"["m-1", "1.5", "2026-03-01T12:15:00Z", null, null]"#;
        assert!(
            serde_json::from_str::<Submission>(array).is_ok(),
            "serde alone accepts it"
        );
        assert_eq!(
            Submission::from_json(array).unwrap_err(),
            Invalid::NotAnObject
        );
        assert_eq!(
            Submission::from_json("7").unwrap_err(),
            Invalid::NotAnObject
        );
    }

    fn kwh_amount(json: &str) -> Member {
        serde_json::from_str::<Submission>(json).unwrap().kwh_amount
    }

    #[test]
    fn a_number_keeps_its_own_text() {
        for number in [
            "1.250",
            "0.1000000000000000000000000001",
            "-0",
            "1e-3",
            "99999999999999999999",
        ] {
            let json = format!(r#"{{"kwh_amount": {number} }}"#);
            assert_eq!(kwh_amount(&json), Member::Number(number.to_owned()));
        }
    }

    #[test]
    fn other_kinds_are_neither_numbers_nor_texts() {
        for other in [
            "true",
            "[1.5]",
            "{}",
            r#"{"$serde_json::private::Number": "1.5"}"#,
            r#"{"$serde_json::private::RawValue": "1.5"}"#,
        ] {
            let json = format!(r#"{{"kwh_amount": {other}}}"#);
            assert_eq!(kwh_amount(&json), Member::Other, "{other}");
        }
    }

    #[test]
    fn null_counts_as_left_out_and_unknown_members_are_ignored() {
        assert_eq!(kwh_amount("{}"), Member::Missing);
        assert_eq!(
            kwh_amount(r#"{"kwh_amount": null, "colour": {"a": [1]}}"#),
            Member::Missing
        );
    }

    #[test]
    fn a_text_is_decoded() {
        let text = kwh_amount(r#"{"kwh_amount": "1\u002e5"}"#);
        assert_eq!(text, Member::Text("1.5".to_owned()));
    }

    #[test]
    fn a_member_given_twice_is_refused() {
        let twice = serde_json::from_str::<Submission>(r#"{"kwh_amount": 1, "kwh_amount": 2}"#);
        assert!(
            twice
                .unwrap_err()
                .to_string()
                .starts_with("duplicate field `kwh_amount`")
        );
    }
}
