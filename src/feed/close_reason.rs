//! How a stream ends, and what the client is told.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use serde::Serialize;

use super::event::Seq;
use crate::telemetry::names;
use crate::websocket::{Closing, FRAGMENTS_MAX, MESSAGE_BYTES_MAX, SocketError};

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client's connection is gone.
    Gone,
    /// The client closed it; it is told its own code.
    Left(Option<Closing>),
    /// Nothing was heard of the client for too long.
    Silent,
    /// The service drains; the client is to come back after this time.
    GoingAway {
        retry_after: Duration,
    },
    /// No valid token came in time; the sentence says what was wrong.
    Unauthorized(String),
    TokenExpired,
    /// The client did not take its events.
    TooSlow {
        last: Seq,
    },
    /// The client sends faster than it is answered.
    Unanswered,
    /// The client sends more messages than it may.
    TooManyMessages,
    /// Of the subject, over all that it does.
    TooManyRequests,
    /// Too many of the client's messages were not understood; the sentence is about the last one.
    BadMessages(String),
    /// A filter that costs more than one may.
    FilterTooLong,
    MessageTooBig,
    TooManyFragments,
    MessageUnfinished,
    NotUtf8,
    NotWebSocket(&'static str),
    /// The event log cannot be read.
    LogUnavailable {
        last: Seq,
    },
}

/// RFC 6455, section 7.4.1, and 44xx after the HTTP statuses that they resemble.
mod code {
    pub const NORMAL: u16 = 1000;
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL_ERROR: u16 = 1002;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const MESSAGE_TOO_BIG: u16 = 1009;
    pub const TRY_AGAIN_LATER: u16 = 1013;
    pub const BAD_MESSAGE: u16 = 4400;
    pub const UNAUTHORIZED: u16 = 4401;
    pub const TOO_SLOW: u16 = 4408;
    pub const TOO_MANY_REQUESTS: u16 = 4429;
}

/// The reason of a close frame is one JSON object, so that programs need not read sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Told {
    reason: &'static str,
    /// Numbers up to here were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_after: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A client that was refused for what it does too often is to wait this long.
const REFUSED_RETRY_AFTER_MS: u64 = 60_000;
/// The event log is away while the database restarts. All listeners are told at once, and are not to come back so.
const LOG_RETRY_AFTER_MS: RangeInclusive<u64> = 2_000..=10_000;

impl CloseReason {
    /// Whether somebody should look when this happens often. Clients that leave, tokens that end and drains are daily life.
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

    /// What close frames, where one is sent, and metrics call it; one of [`names::CLOSE_REASONS`].
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

    /// Counts a connection that ended so.
    pub(super) fn count(&self) {
        metrics::counter!(names::WEBSOCKET_CLOSES, "reason" => self.name()).increment(1);
        if self.is_error() {
            metrics::counter!(names::WEBSOCKET_ERRORS).increment(1);
        }
    }

    /// Code and reason of the close frame, at most 123 bytes (RFC 6455, section 5.5); `None` when there is nobody to tell.
    pub fn close_frame(&self) -> Option<(u16, String)> {
        let told = Told {
            reason: self.name(),
            ..Told::default()
        };
        let (code, told) = match self {
            CloseReason::Gone | CloseReason::Silent => return None,
            CloseReason::Left(closing) => {
                let code = closing
                    .as_ref()
                    .map_or(code::NORMAL, |closing| closing.code);
                return Some((code, String::new()));
            }
            CloseReason::GoingAway { retry_after } => (
                code::GOING_AWAY,
                Told {
                    retry_after_ms: Some(millis(*retry_after)),
                    ..told
                },
            ),
            CloseReason::Unauthorized(sentence) => (
                code::UNAUTHORIZED,
                Told {
                    error: Some(sentence.clone()),
                    ..told
                },
            ),
            CloseReason::TokenExpired => (code::UNAUTHORIZED, told),
            CloseReason::TooSlow { last } => (
                code::TOO_SLOW,
                Told {
                    resume_after: Some(*last),
                    ..told
                },
            ),
            CloseReason::Unanswered => (code::POLICY, told),
            CloseReason::TooManyMessages => (
                code::TOO_MANY_REQUESTS,
                Told {
                    retry_after_ms: Some(REFUSED_RETRY_AFTER_MS),
                    ..told
                },
            ),
            CloseReason::TooManyRequests => (
                code::TOO_MANY_REQUESTS,
                Told {
                    retry_after_ms: Some(REFUSED_RETRY_AFTER_MS),
                    ..told
                },
            ),
            CloseReason::BadMessages(sentence) => (
                code::BAD_MESSAGE,
                Told {
                    error: Some(sentence.clone()),
                    ..told
                },
            ),
            CloseReason::FilterTooLong => (
                code::BAD_MESSAGE,
                Told {
                    limit: Some(super::protocol::FILTER_ITEMS_MAX as u64),
                    ..told
                },
            ),
            CloseReason::MessageTooBig => (
                code::MESSAGE_TOO_BIG,
                Told {
                    limit: Some(MESSAGE_BYTES_MAX as u64),
                    ..told
                },
            ),
            CloseReason::TooManyFragments => (
                code::POLICY,
                Told {
                    limit: Some(u64::from(FRAGMENTS_MAX)),
                    ..told
                },
            ),
            CloseReason::MessageUnfinished => (code::POLICY, told),
            CloseReason::NotUtf8 => (code::NOT_UTF8, told),
            CloseReason::NotWebSocket(sentence) => (
                code::PROTOCOL_ERROR,
                Told {
                    error: Some((*sentence).to_owned()),
                    ..told
                },
            ),
            CloseReason::LogUnavailable { last } => (
                code::TRY_AGAIN_LATER,
                Told {
                    resume_after: Some(*last),
                    retry_after_ms: Some(rand::rng().random_range(LOG_RETRY_AFTER_MS)),
                    ..told
                },
            ),
        };
        Some((code, told.into_text()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Told {
    /// The sentence is cut until all of it fits.
    fn into_text(mut self) -> String {
        const BYTES_MAX: usize = 123;
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            match &mut self.error {
                Some(sentence) if text.len() > BYTES_MAX && !sentence.is_empty() => {
                    sentence.pop();
                }
                _ => return text,
            }
        }
    }
}

/// What ended the reading of a socket.
impl From<SocketError> for CloseReason {
    fn from(fault: SocketError) -> CloseReason {
        match fault {
            SocketError::Gone => CloseReason::Gone,
            SocketError::Protocol(sentence) => CloseReason::NotWebSocket(sentence),
            SocketError::NotUtf8 => CloseReason::NotUtf8,
            SocketError::TooBig => CloseReason::MessageTooBig,
            SocketError::TooManyFragments => CloseReason::TooManyFragments,
            SocketError::Unfinished => CloseReason::MessageUnfinished,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(reason: &CloseReason) -> (u16, Value) {
        let (code, text) = reason.close_frame().unwrap();
        assert!(text.len() <= 123, "{text}");
        (code, serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let (code, told) = told(&CloseReason::Unauthorized("ü\"".repeat(100)));
        assert_eq!(code, 4401);
        assert_eq!(told["reason"], "unauthorized");
        let sentence = told["error"].as_str().unwrap();
        assert!(sentence.len() > 50 && "ü\"".repeat(100).starts_with(sentence));
    }

    #[test]
    fn the_last_number_fits_whatever_it_is() {
        let last = Seq::new(i64::MAX).unwrap();
        assert_eq!(
            told(&CloseReason::TooSlow { last }),
            (
                4408,
                json!({"reason": "too_slow", "resume_after": i64::MAX})
            )
        );
        assert_eq!(
            told(&CloseReason::LogUnavailable { last }).1["resume_after"],
            json!(i64::MAX)
        );
    }

    #[test]
    fn each_reason_is_counted_under_a_name_of_its_own() {
        let last = Seq::from_stored(7);
        let all = [
            CloseReason::Gone,
            CloseReason::Left(None),
            CloseReason::Silent,
            CloseReason::GoingAway {
                retry_after: Duration::from_secs(1),
            },
            CloseReason::Unauthorized(String::new()),
            CloseReason::TokenExpired,
            CloseReason::TooSlow { last },
            CloseReason::Unanswered,
            CloseReason::TooManyMessages,
            CloseReason::TooManyRequests,
            CloseReason::BadMessages(String::new()),
            CloseReason::FilterTooLong,
            CloseReason::MessageTooBig,
            CloseReason::TooManyFragments,
            CloseReason::MessageUnfinished,
            CloseReason::NotUtf8,
            CloseReason::NotWebSocket(""),
            CloseReason::LogUnavailable { last },
        ];
        let called: Vec<&str> = all.iter().map(CloseReason::name).collect();
        assert_eq!(called, names::CLOSE_REASONS);
        for reason in all {
            let is_told = reason
                .close_frame()
                .is_some_and(|(_, text)| text.contains(reason.name()));
            let is_silent = matches!(
                reason,
                CloseReason::Gone | CloseReason::Silent | CloseReason::Left(_)
            );
            assert_eq!(is_told, !is_silent, "{reason:?}");
        }
    }

    #[test]
    fn who_closes_is_told_its_own_code() {
        let left = |code| CloseReason::Left(Some(Closing { code })).close_frame();
        assert_eq!(left(1001), Some((1001, String::new())));
        assert_eq!(
            CloseReason::Left(None).close_frame(),
            Some((1000, String::new()))
        );
        assert_eq!(CloseReason::Gone.close_frame(), None);
    }
}
