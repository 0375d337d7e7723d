//! Writes RFC 3339 timestamps: in UTC, with `Z`, and with as many digits after the second as their reader expects.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serializer;

/// To the second, for people and for the files of `gridtokenx run`: `2026-03-01T12:15:00Z`.
pub fn rfc3339_secs(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// To the microsecond, as the API and the feed write every moment: `2026-03-01T12:15:00.000000Z`.
pub fn rfc3339_micros(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// With as many digits as it takes, for error messages that repeat what a client sent: `2026-03-01T12:15:00.500Z`.
pub fn rfc3339_shortest(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// To the millisecond, for `#[serde(serialize_with)]`.
pub fn serialize_rfc3339_millis<S: Serializer>(
    moment: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// To the microsecond, for `#[serde(serialize_with)]`.
pub fn serialize_rfc3339_micros<S: Serializer>(
    moment: &DateTime<Utc>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_micros(*moment))
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Moments {
        #[serde(serialize_with = "serialize_rfc3339_millis")]
        millis: DateTime<Utc>,
        #[serde(serialize_with = "serialize_rfc3339_micros")]
        micros: DateTime<Utc>,
    }

    #[test]
    fn each_form_has_its_own_number_of_digits() {
        let moment = DateTime::from_timestamp_micros(1_772_367_300_120_000).unwrap();
        assert_eq!(rfc3339_secs(moment), "2026-03-01T12:15:00Z");
        assert_eq!(rfc3339_micros(moment), "2026-03-01T12:15:00.120000Z");
        assert_eq!(rfc3339_shortest(moment), "2026-03-01T12:15:00.120Z");
        let json = serde_json::to_string(&Moments {
            millis: moment,
            micros: moment,
        });
        assert_eq!(
            json.unwrap(),
            r#"{"millis":"2026-03-01T12:15:00.120Z","micros":"2026-03-01T12:15:00.120000Z"}"#
        );
    }
}
