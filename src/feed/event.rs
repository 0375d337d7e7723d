//! A numbered event.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Kwh;
use crate::websocket::Text;

/// Number of an event: 1, 2, 3 … without gaps. 0 is the position before the first event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Seq(i64);

impl Seq {
    /// `None` for a negative number.
    pub fn new(number: i64) -> Option<Seq> {
        (number >= 0).then_some(Seq(number))
    }

    /// For numbers from the database, which are never negative.
    pub(super) fn from_stored(number: i64) -> Seq {
        Seq(number.max(0))
    }

    pub fn get(self) -> i64 {
        self.0
    }

    pub(super) fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    pub(super) fn previous(self) -> Seq {
        Seq((self.0 - 1).max(0))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event as every listener receives it, with the fields that viewers and filters are matched against.
#[derive(Clone, Debug)]
pub struct FeedEvent {
    pub seq: Seq,
    pub event_type: String,
    /// The user that the event concerns; `None`: no single user. See [`super::viewer`] for who may see it.
    pub owner: Option<String>,
    pub meter: Option<String>,
    /// Energy of the reading that it reports.
    pub kwh: Option<Kwh>,
    /// The JSON object with `seq` as its first member: built, framed and compressed once for all listeners.
    pub document: Text,
    reading: Option<Uuid>,
    written_at: DateTime<Utc>,
}

/// A row of `events`.
pub(super) struct StoredEvent {
    pub seq: i64,
    pub event_type: String,
    pub owner: Option<String>,
    pub body: String,
    pub written_at: DateTime<Utc>,
}

impl From<StoredEvent> for FeedEvent {
    fn from(stored: StoredEvent) -> FeedEvent {
        #[derive(Default, Deserialize)]
        struct Subjects {
            meter_id: Option<String>,
            reading_id: Option<Uuid>,
            kwh_amount: Option<String>,
        }
        let subjects: Subjects = serde_json::from_str(&stored.body).unwrap_or_default();
        FeedEvent {
            seq: Seq::from_stored(stored.seq),
            document: Text::new(&with_seq_in_front(stored.seq, &stored.body)),
            event_type: stored.event_type,
            owner: stored.owner,
            meter: subjects.meter_id,
            kwh: subjects
                .kwh_amount
                .and_then(|amount| Kwh::parse(&amount).ok()),
            reading: subjects.reading_id,
            written_at: stored.written_at,
        }
    }
}

/// The outbox wrote the stored text and it is always an object with members, so inserting one gives an object.
fn with_seq_in_front(seq: i64, body: &str) -> String {
    let members = body.strip_prefix('{').unwrap_or(body);
    format!("{{\"seq\":{seq},{members}")
}

impl FeedEvent {
    /// Time since the event was written to the outbox.
    pub fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        now - self.written_at
    }

    /// Time since the reading that the event reports was accepted: the reading's id (UUIDv7) contains that millisecond.
    pub fn reading_age(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        let (secs, nanos) = self.reading?.get_timestamp()?.to_unix();
        let accepted_at = DateTime::from_timestamp(i64::try_from(secs).ok()?, nanos)?;
        Some(now - accepted_at)
    }
}

#[cfg(test)]
pub(super) fn event(seq: i64, event_type: &str, owner: Option<&str>, body: &str) -> FeedEvent {
    FeedEvent::from(StoredEvent {
        seq,
        event_type: event_type.to_owned(),
        owner: owner.map(str::to_owned),
        body: body.to_owned(),
        written_at: Utc::now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_the_first_member_of_the_document() {
        let event = event(
            42,
            "TokensMinted",
            Some("anna"),
            r#"{"id":"7","meter_id":"m-1","kwh_amount":"0.5"}"#,
        );
        assert_eq!(
            event.document.as_str(),
            r#"{"seq":42,"id":"7","meter_id":"m-1","kwh_amount":"0.5"}"#
        );
        assert_eq!(event.kwh, Kwh::parse("0.5").ok());
        assert_eq!(event.meter.as_deref(), Some("m-1"));
        assert_eq!(event.reading_age(Utc::now()), None);
    }

    #[test]
    fn a_readings_age_comes_from_its_id() {
        let body = format!(r#"{{"reading_id":"{}"}}"#, Uuid::now_v7());
        let event = event(1, "TokensMinted", None, &body);
        let age = event.reading_age(Utc::now()).unwrap();
        assert!((0..10_000).contains(&age.num_milliseconds()), "{age}");
    }
}
