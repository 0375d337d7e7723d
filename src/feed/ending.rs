//! How a stream ends, and what the client is told.

use axum::extract::ws::{CloseFrame, Utf8Bytes};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::event::Seq;

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it, or its connection is gone.
    Left,
    /// Nothing was heard of the client for too long.
    Silent,
    /// The service drains.
    GoingAway,
    /// No valid token came in time; the sentence says what was wrong.
    Unauthorized(String),
    TokenExpired,
    /// The client did not take its events.
    TooSlow {
        last: Seq,
    },
    /// The client sends faster than it is answered.
    TooTalkative,
    TooManyRequests,
    MessageTooBig,
    NotUtf8,
    NotWebSocket,
    /// The event log cannot be read.
    LogUnavailable {
        last: Seq,
    },
}

/// RFC 6455, section 7.4.1, and 44xx after the HTTP statuses that they resemble.
mod code {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const MESSAGE_TOO_BIG: u16 = 1009;
    pub const TRY_AGAIN_LATER: u16 = 1013;
    pub const UNAUTHORIZED: u16 = 4401;
    pub const TOO_SLOW: u16 = 4408;
    pub const TOO_MANY_REQUESTS: u16 = 4429;
}

impl CloseReason {
    /// Whether somebody should look when this happens often. Clients that leave, tokens that end and drains are daily life.
    pub fn is_error(&self) -> bool {
        match self {
            CloseReason::Left | CloseReason::GoingAway | CloseReason::TokenExpired => false,
            CloseReason::Silent
            | CloseReason::Unauthorized(_)
            | CloseReason::TooSlow { .. }
            | CloseReason::TooTalkative
            | CloseReason::TooManyRequests
            | CloseReason::MessageTooBig
            | CloseReason::NotUtf8
            | CloseReason::NotWebSocket
            | CloseReason::LogUnavailable { .. } => true,
        }
    }

    /// Code and sentence; `None` when there is nobody to tell.
    fn farewell(&self) -> Option<(u16, String)> {
        let (code, sentence) = match self {
            CloseReason::Left | CloseReason::Silent => return None,
            CloseReason::GoingAway => (
                code::GOING_AWAY,
                "this process ends; connect again and resume".to_owned(),
            ),
            CloseReason::Unauthorized(sentence) => (code::UNAUTHORIZED, sentence.clone()),
            CloseReason::TokenExpired => (code::UNAUTHORIZED, "token expired".to_owned()),
            CloseReason::TooSlow { last } => (
                code::TOO_SLOW,
                format!("more events wait than are kept for one client; resume after {last}"),
            ),
            CloseReason::TooTalkative => (
                code::POLICY,
                "messages come faster than they are answered".to_owned(),
            ),
            CloseReason::TooManyRequests => (
                code::TOO_MANY_REQUESTS,
                "too many requests of this subject; wait a minute".to_owned(),
            ),
            CloseReason::MessageTooBig => (
                code::MESSAGE_TOO_BIG,
                "a message has 64 KiB at most".to_owned(),
            ),
            CloseReason::NotUtf8 => (code::NOT_UTF8, "a text frame is UTF-8".to_owned()),
            CloseReason::NotWebSocket => (
                code::PROTOCOL_ERROR,
                "these are no WebSocket frames".to_owned(),
            ),
            CloseReason::LogUnavailable { last } => (
                code::TRY_AGAIN_LATER,
                format!("events cannot be read at the moment; resume after {last}"),
            ),
        };
        Some((code, sentence))
    }
}

/// What ended the reading of a socket.
impl From<axum::Error> for CloseReason {
    fn from(error: axum::Error) -> CloseReason {
        let error = error.into_inner();
        match error.downcast_ref::<SocketError>() {
            Some(SocketError::Capacity(_)) => CloseReason::MessageTooBig,
            Some(SocketError::Utf8(_)) => CloseReason::NotUtf8,
            Some(SocketError::Protocol(violation)) if !is_cut_off(violation) => {
                CloseReason::NotWebSocket
            }
            _ => CloseReason::Left,
        }
    }
}

/// Most clients that go away do not close.
fn is_cut_off(violation: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(violation, ProtocolError::ResetWithoutClosingHandshake)
}

/// The close frame for a reason. Its sentence has at most 123 bytes (RFC 6455, section 5.5).
pub fn close_frame(reason: &CloseReason) -> Option<CloseFrame> {
    const SENTENCE_BYTES_MAX: usize = 123;
    let (code, mut sentence) = reason.farewell()?;
    while sentence.len() > SENTENCE_BYTES_MAX {
        sentence.pop();
    }
    Some(CloseFrame {
        code,
        reason: Utf8Bytes::from(sentence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let frame = close_frame(&CloseReason::Unauthorized("ü".repeat(100))).unwrap();
        assert_eq!(frame.code, 4401);
        assert_eq!(frame.reason.as_str(), "ü".repeat(61));
    }

    #[test]
    fn the_last_number_fits_whatever_it_is() {
        let last = Seq::new(i64::MAX).unwrap();
        for reason in [
            CloseReason::TooSlow { last },
            CloseReason::LogUnavailable { last },
        ] {
            let frame = close_frame(&reason).unwrap();
            assert!(
                frame.reason.ends_with("resume after 9223372036854775807"),
                "{frame:?}"
            );
        }
    }
}
