//! The reasons for which streams end, with the labels that metrics give them.

use std::time::Duration;

use thiserror::Error;

use super::client_message::ProtocolError;
use super::event::Seq;
use crate::domain::AuthError;
use crate::telemetry::names;
use crate::websocket::{CloseCode, ProtocolViolation, SocketError};

/// The reason for which a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client's connection has ended.
    Gone,
    /// The client closed the stream, with this code; the server answers with the same one.
    Left(Option<CloseCode>),
    /// The client sent nothing for too long.
    Silent,
    /// The service drains; the client should reconnect after this time.
    GoingAway {
        retry_after: Duration,
    },
    /// The client did not authenticate.
    Unauthorized(AuthFailure),
    TokenExpired,
    /// The client did not read its events.
    TooSlow {
        last: Seq,
    },
    /// The client sends messages faster than it reads the answers.
    Unanswered,
    /// The client exceeds the message rate of one stream.
    TooManyMessages,
    /// The client exceeds the request rate of its subject.
    TooManyRequests,
    /// The client sent too many messages that could not be followed; this is wrong with the last one.
    BadMessages(ProtocolError),
    /// A list in the client's filter is too long.
    FilterTooLong,
    MessageTooBig,
    TooManyFragments,
    MessageUnfinished,
    NotUtf8,
    NotWebSocket(ProtocolViolation),
    /// The event log cannot be read.
    LogUnavailable {
        last: Seq,
    },
}

/// The reason for which a stream is not authenticated. The sentences are sent to the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AuthFailure {
    #[error("no auth message within {} s", limit.as_secs())]
    NoMessage { limit: Duration },
    #[error("the first message must be auth, with a token")]
    NotAuth,
    #[error("the token could not be checked in time")]
    CheckTimedOut,
    /// The sentence is the one that a request with this token gets.
    #[error("{0}")]
    TokenRefused(AuthError),
}

impl CloseReason {
    /// Whether an operator should investigate when this happens often. Clients that leave, tokens that expire and drains are
    /// normal.
    pub fn is_error(&self) -> bool {
        match self {
            CloseReason::Gone
            | CloseReason::Left(_)
            | CloseReason::GoingAway { .. }
            | CloseReason::TokenExpired => false,
            CloseReason::Silent
            | CloseReason::Unauthorized(_)
            | CloseReason::TooSlow { .. }
            | CloseReason::Unanswered
            | CloseReason::TooManyMessages
            | CloseReason::TooManyRequests
            | CloseReason::BadMessages(_)
            | CloseReason::FilterTooLong
            | CloseReason::MessageTooBig
            | CloseReason::TooManyFragments
            | CloseReason::MessageUnfinished
            | CloseReason::NotUtf8
            | CloseReason::NotWebSocket(_)
            | CloseReason::LogUnavailable { .. } => true,
        }
    }

    /// The name in close frames and metrics; one of [`names::CLOSE_REASONS`].
    pub fn name(&self) -> &'static str {
        match self {
            CloseReason::Gone => "gone",
            CloseReason::Left(_) => "left",
            CloseReason::Silent => "silent",
            CloseReason::GoingAway { .. } => "going_away",
            CloseReason::Unauthorized(_) => "unauthorized",
            CloseReason::TokenExpired => "token_expired",
            CloseReason::TooSlow { .. } => "too_slow",
            CloseReason::Unanswered => "unanswered_messages",
            CloseReason::TooManyMessages => "too_many_messages",
            CloseReason::TooManyRequests => "too_many_requests",
            CloseReason::BadMessages(_) => "bad_messages",
            CloseReason::FilterTooLong => "filter_too_long",
            CloseReason::MessageTooBig => "message_too_big",
            CloseReason::TooManyFragments => "too_many_fragments",
            CloseReason::MessageUnfinished => "message_unfinished",
            CloseReason::NotUtf8 => "not_utf8",
            CloseReason::NotWebSocket(_) => "protocol_error",
            CloseReason::LogUnavailable { .. } => "log_unavailable",
        }
    }

    /// Counts a connection that ended for this reason.
    pub(super) fn count(&self) {
        metrics::counter!(names::WEBSOCKET_CLOSES, "reason" => self.name()).increment(1);
        if self.is_error() {
            metrics::counter!(names::WEBSOCKET_ERRORS).increment(1);
        }
    }
}

impl From<SocketError> for CloseReason {
    fn from(error: SocketError) -> CloseReason {
        match error {
            SocketError::Gone => CloseReason::Gone,
            SocketError::Protocol(violation) => CloseReason::NotWebSocket(violation),
            SocketError::NotUtf8 => CloseReason::NotUtf8,
            SocketError::TooBig => CloseReason::MessageTooBig,
            SocketError::TooManyFragments => CloseReason::TooManyFragments,
            SocketError::Unfinished => CloseReason::MessageUnfinished,
        }
    }
}
