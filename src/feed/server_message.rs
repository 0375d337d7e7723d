//! The messages that the server sends to a client besides events.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::client_message::ProtocolError;
use super::event::Seq;
use super::log::Gap;
use crate::domain::rfc3339_micros;

/// A message of the server other than an event.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ServerMessage {
    /// The stream is open; live events start after `seq`.
    Hello {
        connection_id: Uuid,
        seq: Seq,
        server_time: String,
    },
    /// These numbers cannot be delivered.
    Gap(Gap),
    /// A message could not be parsed or followed; nothing has changed.
    Error { error: String },
    /// Answers `ping`. Everything that the client requested before is in force.
    Pong { server_time: String },
}

impl ServerMessage {
    pub fn hello(connection_id: Uuid, seq: Seq, now: DateTime<Utc>) -> ServerMessage {
        ServerMessage::Hello {
            connection_id,
            seq,
            server_time: rfc3339_micros(now),
        }
    }

    pub fn pong(now: DateTime<Utc>) -> ServerMessage {
        ServerMessage::Pong {
            server_time: rfc3339_micros(now),
        }
    }

    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            // serde_json cannot fail on strings and numbers under string keys.
            unreachable!("a server message is always JSON: {error}")
        })
    }
}

impl From<ProtocolError> for ServerMessage {
    fn from(error: ProtocolError) -> ServerMessage {
        ServerMessage::Error {
            error: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_documented() {
        let now = DateTime::from_timestamp(1_764_000_000, 5_000).unwrap();
        let seq = |number| Seq::new(number).unwrap();
        assert_eq!(
            ServerMessage::hello(Uuid::nil(), seq(42), now).to_text(),
            r#"{"type":"hello","connection_id":"00000000-0000-0000-0000-000000000000","seq":42,"server_time":"2025-11-24T16:00:00.000005Z"}"#
        );
        let gap = Gap {
            from: seq(1),
            to: seq(99),
        };
        assert_eq!(
            ServerMessage::Gap(gap).to_text(),
            r#"{"type":"gap","from":1,"to":99}"#
        );
        let error = ServerMessage::from(ProtocolError::Token).to_text();
        assert_eq!(
            error,
            r#"{"type":"error","error":"auth needs `token`, a text"}"#
        );
    }
}
