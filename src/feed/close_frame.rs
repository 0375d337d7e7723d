//! Builds the close frame that reports why a stream ends: a status code, and a reason that is one JSON object, so that programs
//! need not parse sentences.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use serde::Serialize;

use super::client_message::FILTER_ITEMS_MAX;
use super::close_reason::CloseReason;
use super::event::Seq;
use crate::websocket::{CloseCode, FRAGMENTS_MAX, MESSAGE_BYTES_MAX};

/// RFC 6455, section 7.4.1; the 44xx codes resemble HTTP statuses.
mod code {
    use crate::websocket::CloseCode;

    pub const NORMAL: CloseCode = CloseCode(1000);
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    pub const NOT_UTF8: CloseCode = CloseCode(1007);
    pub const POLICY: CloseCode = CloseCode(1008);
    pub const MESSAGE_TOO_BIG: CloseCode = CloseCode(1009);
    pub const TRY_AGAIN_LATER: CloseCode = CloseCode(1013);
    pub const BAD_MESSAGE: CloseCode = CloseCode(4400);
    pub const UNAUTHORIZED: CloseCode = CloseCode(4401);
    pub const TOO_SLOW: CloseCode = CloseCode(4408);
    pub const TOO_MANY_REQUESTS: CloseCode = CloseCode(4429);
}

/// A client that exceeded a rate limit should wait this long.
const RATE_LIMITED_RETRY_AFTER_MS: u64 = 60_000;
/// The event log is unavailable while the database restarts. All streams end at once, so the times are spread to keep their
/// clients from reconnecting at once.
const LOG_RETRY_AFTER_MS: RangeInclusive<u64> = 2_000..=10_000;
/// Longest reason: a control frame has at most 125 bytes (RFC 6455, section 5.5), and the code takes two.
const REASON_BYTES_MAX: usize = 123;

/// The close frame for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CloseFrame {
    pub code: CloseCode,
    pub reason: String,
}

impl CloseFrame {
    /// `None` if no client is left to receive it.
    pub fn new(reason: &CloseReason) -> Option<CloseFrame> {
        let document = Document {
            reason: reason.name(),
            ..Document::default()
        };
        let (code, document) = match reason {
            CloseReason::Gone | CloseReason::Silent => return None,
            CloseReason::Left(code) => {
                return Some(CloseFrame {
                    code: code.unwrap_or(code::NORMAL),
                    reason: String::new(),
                });
            }
            CloseReason::GoingAway { retry_after } => {
                (code::GOING_AWAY, document.retry_after(*retry_after))
            }
            CloseReason::Unauthorized(failure) => {
                (code::UNAUTHORIZED, document.error(failure.to_string()))
            }
            CloseReason::TokenExpired => (code::UNAUTHORIZED, document),
            CloseReason::TooSlow { last } => (code::TOO_SLOW, document.resume_after(*last)),
            CloseReason::Unanswered | CloseReason::MessageUnfinished => (code::POLICY, document),
            CloseReason::TooManyMessages | CloseReason::TooManyRequests => (
                code::TOO_MANY_REQUESTS,
                document.retry_after_ms(RATE_LIMITED_RETRY_AFTER_MS),
            ),
            CloseReason::BadMessages(error) => {
                (code::BAD_MESSAGE, document.error(error.to_string()))
            }
            CloseReason::FilterTooLong => (code::BAD_MESSAGE, document.limit(FILTER_ITEMS_MAX)),
            CloseReason::MessageTooBig => {
                (code::MESSAGE_TOO_BIG, document.limit(MESSAGE_BYTES_MAX))
            }
            // A constant, and usize has at least 32 bits.
            CloseReason::TooManyFragments => (code::POLICY, document.limit(FRAGMENTS_MAX as usize)),
            CloseReason::NotUtf8 => (code::NOT_UTF8, document),
            CloseReason::NotWebSocket(violation) => {
                (code::PROTOCOL_ERROR, document.error(violation.to_string()))
            }
            CloseReason::LogUnavailable { last } => (
                code::TRY_AGAIN_LATER,
                document
                    .resume_after(*last)
                    .retry_after_ms(rand::rng().random_range(LOG_RETRY_AFTER_MS)),
            ),
        };
        Some(CloseFrame {
            code,
            reason: document.into_text(),
        })
    }
}

/// The JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Document {
    reason: &'static str,
    /// Events up to this number were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_after: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Document {
    fn resume_after(self, last: Seq) -> Document {
        Document {
            resume_after: Some(last),
            ..self
        }
    }

    fn retry_after(self, time: Duration) -> Document {
        self.retry_after_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    fn retry_after_ms(self, retry_after_ms: u64) -> Document {
        Document {
            retry_after_ms: Some(retry_after_ms),
            ..self
        }
    }

    fn limit(self, limit: usize) -> Document {
        Document {
            limit: Some(limit),
            ..self
        }
    }

    fn error(self, sentence: String) -> Document {
        Document {
            error: Some(sentence),
            ..self
        }
    }

    /// Truncates the sentence until the document fits into [`REASON_BYTES_MAX`].
    fn into_text(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            match &mut self.error {
                Some(sentence) if text.len() > REASON_BYTES_MAX && !sentence.is_empty() => {
                    sentence.pop();
                }
                _ => return text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::client_message::ProtocolError;
    use super::super::close_reason::AuthFailure;
    use super::*;
    use crate::domain::{AuthError, InvalidClaims};
    use crate::telemetry::names;
    use crate::websocket::ProtocolViolation;

    fn code_and_document(reason: &CloseReason) -> (u16, Value) {
        let CloseFrame { code, reason } = CloseFrame::new(reason).unwrap();
        assert!(reason.len() <= REASON_BYTES_MAX, "{reason}");
        (code.0, serde_json::from_str(&reason).unwrap())
    }

    #[test]
    fn a_long_sentence_is_truncated_between_characters() {
        let claim = "ü\"".repeat(100);
        let refused = AuthError::Claims(InvalidClaims::Missing { claim });
        let whole = refused.to_string();
        let failure = AuthFailure::TokenRefused(refused);
        let (code, document) = code_and_document(&CloseReason::Unauthorized(failure));
        assert_eq!(code, 4401);
        assert_eq!(document["reason"], "unauthorized");
        let sentence = document["error"].as_str().unwrap();
        assert!(sentence.len() > 50 && whole.starts_with(sentence));
    }

    #[test]
    fn the_last_number_always_fits() {
        let last = Seq::new(i64::MAX).unwrap();
        assert_eq!(
            code_and_document(&CloseReason::TooSlow { last }),
            (
                4408,
                json!({"reason": "too_slow", "resume_after": i64::MAX})
            )
        );
        assert_eq!(
            code_and_document(&CloseReason::LogUnavailable { last }).1["resume_after"],
            json!(i64::MAX)
        );
    }

    #[test]
    fn each_reason_has_its_own_name_in_metrics_and_close_frames() {
        let last = Seq::from_stored(7);
        let all = [
            CloseReason::Gone,
            CloseReason::Left(None),
            CloseReason::Silent,
            CloseReason::GoingAway {
                retry_after: Duration::from_secs(1),
            },
            CloseReason::Unauthorized(AuthFailure::NotAuth),
            CloseReason::TokenExpired,
            CloseReason::TooSlow { last },
            CloseReason::Unanswered,
            CloseReason::TooManyMessages,
            CloseReason::TooManyRequests,
            CloseReason::BadMessages(ProtocolError::NotAnObject),
            CloseReason::FilterTooLong,
            CloseReason::MessageTooBig,
            CloseReason::TooManyFragments,
            CloseReason::MessageUnfinished,
            CloseReason::NotUtf8,
            CloseReason::NotWebSocket(ProtocolViolation::Unmasked),
            CloseReason::LogUnavailable { last },
        ];
        let reason_names: Vec<&str> = all.iter().map(CloseReason::name).collect();
        assert_eq!(reason_names, names::CLOSE_REASONS);
        for reason in all {
            let is_named =
                CloseFrame::new(&reason).is_some_and(|frame| frame.reason.contains(reason.name()));
            let has_no_document = matches!(
                reason,
                CloseReason::Gone | CloseReason::Silent | CloseReason::Left(_)
            );
            assert_eq!(is_named, !has_no_document, "{reason:?}");
        }
    }

    #[test]
    fn a_client_that_closes_gets_its_own_code() {
        let code = |reason| CloseFrame::new(&reason).map(|frame| (frame.code.0, frame.reason));
        assert_eq!(
            code(CloseReason::Left(Some(CloseCode(1001)))),
            Some((1001, String::new()))
        );
        assert_eq!(code(CloseReason::Left(None)), Some((1000, String::new())));
        assert_eq!(code(CloseReason::Gone), None);
    }
}
