//! Parses the messages that a client may send, and describes what is wrong with those that cannot be followed.

use std::collections::HashSet;

use serde_json::{Map, Value};
use thiserror::Error;

use super::event::Seq;
use super::filter::Filter;
use crate::domain::{Kwh, MeterSerial, truncated};
use crate::outbox::EventType;

/// Longest part of an invalid value that its error shows, characters.
const SHOWN_CHARACTERS_MAX: usize = 80;
/// Most items in one list of a filter.
pub(super) const FILTER_ITEMS_MAX: usize = 500;

/// A message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// First message of a client that cannot set a header.
    Auth { token: String },
    /// Continue after this number. A filter replaces the current one.
    Resume { after: Seq, filter: Option<Filter> },
    /// Send only events that pass.
    Subscribe { filter: Filter },
    /// Send no events until the next `subscribe`.
    Unsubscribe,
    /// Answered with `pong`: web pages cannot send the WebSocket's own ping.
    Ping,
}

/// A message that cannot be parsed or followed. The sentences are sent to the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    #[error(
        "a message is a JSON object with the text `type`, such as {{\"type\":\"resume\",\"after\":42}}"
    )]
    NotAnObject,
    #[error("messages are text frames with JSON; binary frames are not accepted")]
    Binary,
    #[error(
        "the message type {0:?} is unknown; known are auth, resume, subscribe, unsubscribe and ping"
    )]
    UnknownType(String),
    #[error("auth needs `token`, a text")]
    Token,
    #[error(
        "resume needs `after`, the number of the last event that the client received: a whole number from 0 to 9223372036854775807"
    )]
    Cursor,
    #[error("`event_types` is an array of event types; {0} is not one")]
    EventTypes(String),
    #[error("`meters` is an array of up to {FILTER_ITEMS_MAX} meter ids; {0} is not one")]
    Meters(String),
    #[error(
        "`min_amount` is an energy in kWh above 0, as a text or a number such as 1.25; {0} is not"
    )]
    MinAmount(String),
    #[error("a list of a filter has up to {FILTER_ITEMS_MAX} items; this one is longer")]
    FilterTooLong,
    #[error("auth must come first: this stream is authenticated already, or live without a token")]
    AuthenticatedAlready,
    #[error(
        "this stream is live: to resume at a number, open another connection and send resume first"
    )]
    LiveAlready,
}

impl ClientMessage {
    pub fn parse(text: &str) -> Result<ClientMessage, ProtocolError> {
        let members: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| ProtocolError::NotAnObject)?;
        let kind = members
            .get("type")
            .and_then(Value::as_str)
            .ok_or(ProtocolError::NotAnObject)?;
        match kind {
            "auth" => members
                .get("token")
                .and_then(Value::as_str)
                .map(|token| ClientMessage::Auth {
                    token: token.to_owned(),
                })
                .ok_or(ProtocolError::Token),
            "resume" => Ok(ClientMessage::Resume {
                after: members
                    .get("after")
                    .and_then(Value::as_i64)
                    .and_then(Seq::new)
                    .ok_or(ProtocolError::Cursor)?,
                filter: Some(filter(&members)?).filter(|filter| *filter != Filter::default()),
            }),
            "subscribe" => Ok(ClientMessage::Subscribe {
                filter: filter(&members)?,
            }),
            "unsubscribe" => Ok(ClientMessage::Unsubscribe),
            "ping" => Ok(ClientMessage::Ping),
            unknown => Err(ProtocolError::UnknownType(
                unknown.chars().take(40).collect(),
            )),
        }
    }
}

fn filter(members: &Map<String, Value>) -> Result<Filter, ProtocolError> {
    Ok(Filter {
        event_types: set(
            members,
            "event_types",
            event_type,
            ProtocolError::EventTypes,
        )?,
        meters: set(members, "meters", meter, ProtocolError::Meters)?,
        min_amount: min_amount(members)?,
    })
}

fn min_amount(members: &Map<String, Value>) -> Result<Option<Kwh>, ProtocolError> {
    let text = match members.get("min_amount") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        // serde_json keeps the number as it was written.
        Some(Value::Number(number)) => number.to_string(),
        Some(other) => return Err(ProtocolError::MinAmount(excerpt_of(other))),
    };
    Kwh::parse(&text)
        .map(Some)
        .map_err(|_| ProtocolError::MinAmount(truncated(&text, SHOWN_CHARACTERS_MAX)))
}

fn excerpt_of(value: &Value) -> String {
    truncated(&value.to_string(), SHOWN_CHARACTERS_MAX)
}

/// The member `name` as a set, if it is present.
fn set(
    members: &Map<String, Value>,
    name: &str,
    read: fn(&Value) -> Option<String>,
    error: fn(String) -> ProtocolError,
) -> Result<Option<HashSet<String>>, ProtocolError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) if items.len() > FILTER_ITEMS_MAX => {
            Err(ProtocolError::FilterTooLong)
        }
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| read(item).ok_or_else(|| error(excerpt_of(item))))
            .collect::<Result<HashSet<String>, ProtocolError>>()
            .map(Some),
        Some(other) => Err(error(excerpt_of(other))),
    }
}

fn event_type(item: &Value) -> Option<String> {
    let name = item.as_str()?;
    EventType::ALL
        .iter()
        .any(|known| known.as_str() == name)
        .then(|| name.to_owned())
}

/// A serial in its stored form.
fn meter(item: &Value) -> Option<String> {
    let serial = MeterSerial::parse(item.as_str()?).ok()?;
    Some(serial.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: i64) -> Seq {
        Seq::new(number).unwrap()
    }

    fn resume(after: i64) -> ClientMessage {
        ClientMessage::Resume {
            after: seq(after),
            filter: None,
        }
    }

    fn set(items: &[&str]) -> Option<HashSet<String>> {
        Some(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn messages_are_parsed() {
        for (text, message) in [
            (r#"{"type":"resume","after":0}"#, resume(0)),
            (
                r#" {"after":9223372036854775807, "type":"resume", "else":[]} "#,
                resume(i64::MAX),
            ),
            (
                r#"{"type":"auth","token":"a.b.c"}"#,
                ClientMessage::Auth {
                    token: "a.b.c".to_owned(),
                },
            ),
            (
                r#"{"type":"subscribe"}"#,
                ClientMessage::Subscribe {
                    filter: Filter::default(),
                },
            ),
            (
                r#"{"type":"subscribe","event_types":["MintFailed"],"meters":["m-1","u\u0308"]}"#,
                ClientMessage::Subscribe {
                    filter: Filter {
                        event_types: set(&["MintFailed"]),
                        meters: set(&["m-1", "ü"]),
                        min_amount: None,
                    },
                },
            ),
            (
                r#"{"type":"resume","after":3,"meters":["m-1"],"event_types":null}"#,
                ClientMessage::Resume {
                    after: seq(3),
                    filter: Some(Filter {
                        event_types: None,
                        meters: set(&["m-1"]),
                        min_amount: None,
                    }),
                },
            ),
            (
                r#"{"type":"subscribe","min_amount":"1.250"}"#,
                ClientMessage::Subscribe {
                    filter: Filter {
                        min_amount: Kwh::parse("1.25").ok(),
                        ..Filter::default()
                    },
                },
            ),
            (
                // Exact, although no float can represent it.
                r#"{"type":"subscribe","min_amount":0.100000000000000001}"#,
                ClientMessage::Subscribe {
                    filter: Filter {
                        min_amount: Kwh::parse("0.100000000000000001").ok(),
                        ..Filter::default()
                    },
                },
            ),
            (r#"{"type":"unsubscribe"}"#, ClientMessage::Unsubscribe),
            (r#"{"type":"ping"}"#, ClientMessage::Ping),
        ] {
            assert_eq!(ClientMessage::parse(text), Ok(message), "{text}");
        }
    }

    #[test]
    fn a_malformed_cursor_is_an_error() {
        for cursor in [
            "-1",
            "1.5",
            "1e3",
            "9223372036854775808",
            "null",
            "\"7\"",
            "true",
            "[7]",
            "{}",
        ] {
            let text = format!(r#"{{"type":"resume","after":{cursor}}}"#);
            assert_eq!(
                ClientMessage::parse(&text),
                Err(ProtocolError::Cursor),
                "{text}"
            );
        }
        assert_eq!(
            ClientMessage::parse(r#"{"type":"resume"}"#),
            Err(ProtocolError::Cursor)
        );
    }

    #[test]
    fn anything_but_a_message_is_an_error() {
        for text in [
            "",
            "hello",
            "7",
            "null",
            "[]",
            r#"["resume"]"#,
            "{}",
            r#"{"type":7}"#,
            "{\"type\":\"resume\"",
        ] {
            assert_eq!(
                ClientMessage::parse(text),
                Err(ProtocolError::NotAnObject),
                "{text}"
            );
        }
        assert_eq!(
            ClientMessage::parse(r#"{"type":"shout"}"#),
            Err(ProtocolError::UnknownType("shout".to_owned()))
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type":"auth"}"#),
            Err(ProtocolError::Token)
        );
    }

    #[test]
    fn an_error_names_the_part_of_a_filter_that_is_wrong() {
        for (members, named) in [
            (r#""event_types":["TokenMinted"]"#, r#""TokenMinted""#),
            (r#""event_types":"TokensMinted""#, r#""TokensMinted""#),
            (r#""meters":[7]"#, "7"),
            (r#""meters":["a b\n"]"#, r#""a b\n""#),
            (r#""min_amount":0"#, "0"),
            (r#""min_amount":"-1""#, "-1"),
            (r#""min_amount":[1]"#, "[1]"),
        ] {
            let text = format!(r#"{{"type":"subscribe",{members}}}"#);
            let error = ClientMessage::parse(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        let many = vec!["m"; FILTER_ITEMS_MAX + 1];
        let text = serde_json::json!({"type": "subscribe", "meters": many}).to_string();
        assert_eq!(
            ClientMessage::parse(&text),
            Err(ProtocolError::FilterTooLong)
        );
    }
}
