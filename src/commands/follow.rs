//! Follows the event feed as any client can: connects, resumes after the last number it saw, and comes back when cut off.
//!
//! Invariant: the caller sees every event of its subject from the first `hello` on, once and in order, however often the
//! connection breaks. Kept by the server's numbering: each connection begins with `resume` after the last number seen.
//! What breaks it is told, never hidden: a [`FollowStep::Gap`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error as SocketError, http::StatusCode};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tokens::TokenSource;
use crate::domain::{Backoff, Jitter, Retries};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A silent feed is asked for a sign of life this often …
const PING_PERIOD: Duration = Duration::from_secs(20);
/// … and given up when nothing at all came for three of them.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const RECONNECT_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5))
        .with_jitter(Jitter::HALF_TO_FULL);
/// The longest that a service may ask us to wait.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// One message of the feed. Fields that its type does not carry are `None`.
#[derive(Clone, Debug, Deserialize)]
pub struct FeedMessage {
    pub r#type: String,
    pub seq: Option<i64>,
    pub timestamp: Option<String>,
    pub meter_id: Option<String>,
    pub reading_id: Option<Uuid>,
    pub kwh_amount: Option<String>,
    pub tokens_minted: Option<String>,
    pub transaction_signature: Option<String>,
    pub error_reason: Option<String>,
    pub total_readings: Option<u64>,
    pub successful_mints: Option<u64>,
    pub failed_mints: Option<u64>,
}

impl FeedMessage {
    /// When the event happened; now, should it not say so.
    pub fn happened_at(&self) -> DateTime<Utc> {
        self.timestamp
            .as_deref()
            .and_then(|timestamp| DateTime::parse_from_rfc3339(timestamp).ok())
            .map_or_else(Utc::now, |timestamp| timestamp.to_utc())
    }
}

/// What happens on the way.
#[derive(Debug)]
pub enum FollowStep<'a> {
    /// Live; `resumed_after` is the number of the last event that was seen before.
    Connected {
        resumed_after: Option<i64>,
    },
    /// An event, parsed and as it came.
    Event {
        message: Box<FeedMessage>,
        raw: &'a str,
    },
    /// Events between two numbers are no longer kept: the server says which.
    Gap {
        raw: &'a str,
    },
    /// The server refused a message of ours, or says something new.
    Remark {
        raw: &'a str,
    },
    Disconnected {
        reason: String,
        retry_in: Duration,
    },
}

/// Why following is pointless.
#[derive(Debug, Error)]
pub enum FollowError {
    #[error("the event feed at {ws_url} refused the token ({status})")]
    Refused { ws_url: String, status: StatusCode },
    #[error("{ws_url:?} is no WebSocket address: {detail}")]
    Address { ws_url: String, detail: String },
}

/// Where and from which number on.
#[derive(Clone, Debug)]
pub struct Follow {
    pub ws_url: String,
    /// Events after this number; `None`: from the moment of the first connection.
    pub after: Option<i64>,
}

/// Follows until `stop`, however often the connection breaks.
pub async fn follow(
    follow: Follow,
    tokens: &TokenSource,
    stop: &CancellationToken,
    mut on: impl FnMut(FollowStep<'_>),
) -> Result<(), FollowError> {
    let mut last_seen = follow.after;
    let mut retries = Retries::new(RECONNECT_BACKOFF);
    loop {
        let connection = listen_once(
            &follow.ws_url,
            tokens,
            &mut last_seen,
            &mut retries,
            &mut on,
        );
        let ended = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = connection => ended,
        };
        let (reason, retry_after) = match ended {
            Ended::Pointless(error) => return Err(error),
            Ended::CutOff(reason) => (reason, Duration::ZERO),
            Ended::Closed {
                reason,
                retry_after,
            } => (reason, retry_after),
        };
        let retry_in = retries.next_delay(rand::random()).max(retry_after);
        on(FollowStep::Disconnected { reason, retry_in });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(retry_in) => {}
        }
    }
}

enum Ended {
    CutOff(String),
    /// By the service, which says when to come back.
    Closed {
        reason: String,
        retry_after: Duration,
    },
    Pointless(FollowError),
}

/// One connection, from the handshake to its end.
async fn listen_once(
    ws_url: &str,
    tokens: &TokenSource,
    last_seen: &mut Option<i64>,
    retries: &mut Retries,
    on: &mut impl FnMut(FollowStep<'_>),
) -> Ended {
    let mut request = match ws_url.into_client_request() {
        Ok(request) => request,
        Err(error) => {
            return Ended::Pointless(FollowError::Address {
                ws_url: ws_url.to_owned(),
                detail: error.to_string(),
            });
        }
    };
    match HeaderValue::from_str(&format!("Bearer {}", tokens.token())) {
        Ok(bearer) => request.headers_mut().insert(header::AUTHORIZATION, bearer),
        Err(error) => return Ended::CutOff(format!("the token fits no header: {error}")),
    };
    let mut socket = match timeout(CONNECT_LIMIT, connect_async(request)).await {
        Ok(Ok((socket, _))) => socket,
        Ok(Err(SocketError::Http(answer)))
            if matches!(
                answer.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) =>
        {
            return Ended::Pointless(FollowError::Refused {
                ws_url: ws_url.to_owned(),
                status: answer.status(),
            });
        }
        Ok(Err(error)) => return Ended::CutOff(error.to_string()),
        Err(_) => return Ended::CutOff(format!("no answer within {CONNECT_LIMIT:?}")),
    };

    let mut ping = interval(PING_PERIOD);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_sign = Instant::now();
    loop {
        let frame = tokio::select! {
            frame = socket.next() => frame,
            _ = ping.tick() => {
                if last_sign.elapsed() > SILENCE_LIMIT {
                    return Ended::CutOff(format!("no sign of life for {SILENCE_LIMIT:?}"));
                }
                if let Err(error) = socket.send(Frame::Ping(Default::default())).await {
                    return Ended::CutOff(error.to_string());
                }
                continue;
            }
        };
        last_sign = Instant::now();
        let text = match frame {
            Some(Ok(Frame::Text(text))) => text,
            Some(Ok(Frame::Close(close))) => {
                return match close {
                    Some(close) => Ended::Closed {
                        reason: format!(
                            "the service closed the stream: {} {}",
                            close.code, close.reason
                        ),
                        retry_after: retry_after(&close.reason),
                    },
                    None => Ended::CutOff("the service closed the stream".to_owned()),
                };
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Ended::CutOff(error.to_string()),
            None => return Ended::CutOff("the connection ended".to_owned()),
        };
        for raw in messages_of(&text) {
            match serde_json::from_str::<FeedMessage>(raw) {
                Ok(hello) if hello.r#type == "hello" => {
                    let resumed_after = *last_seen;
                    // Without a `resume` the stream would stay silent for five seconds.
                    let after = last_seen.or(hello.seq).unwrap_or_default();
                    *last_seen = Some(after);
                    let resume = serde_json::json!({ "type": "resume", "after": after });
                    if let Err(error) = socket.send(Frame::text(resume.to_string())).await {
                        return Ended::CutOff(error.to_string());
                    }
                    retries.reset();
                    on(FollowStep::Connected { resumed_after });
                }
                Ok(message) if message.r#type == "gap" => on(FollowStep::Gap { raw }),
                Ok(message) if message.seq.is_some() => {
                    *last_seen = message.seq;
                    on(FollowStep::Event {
                        message: Box::new(message),
                        raw,
                    });
                }
                _ => on(FollowStep::Remark { raw }),
            }
        }
    }
}

/// What a close frame's reason asks for; nothing when it is none of ours.
fn retry_after(reason: &str) -> Duration {
    #[derive(Default, Deserialize)]
    struct Told {
        #[serde(default)]
        retry_after_ms: u64,
    }
    let told: Told = serde_json::from_str(reason).unwrap_or_default();
    Duration::from_millis(told.retry_after_ms).min(RETRY_AFTER_LIMIT)
}

/// The messages of a frame, which holds one or an array of them.
fn messages_of(frame: &str) -> Vec<&str> {
    match serde_json::from_str::<Vec<&RawValue>>(frame) {
        Ok(messages) => messages.into_iter().map(RawValue::get).collect(),
        Err(_) => vec![frame],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;

    use super::*;
    use crate::commands::tokens::test_tokens;

    #[test]
    fn a_frame_holds_one_message_or_an_array_of_them() {
        assert_eq!(messages_of(r#"{"type":"hello"}"#), [r#"{"type":"hello"}"#]);
        assert_eq!(
            messages_of(r#"[{"seq":1,"type":"a"}, {"seq":2,"type":"b"}]"#),
            [r#"{"seq":1,"type":"a"}"#, r#"{"seq":2,"type":"b"}"#]
        );
    }

    #[test]
    fn a_service_may_ask_for_a_pause_and_not_for_ever() {
        for (reason, pause_ms) in [
            (r#"{"reason":"going_away","retry_after_ms":1250}"#, 1_250),
            (r#"{"reason":"too_slow","resume_after":3}"#, 0),
            ("", 0),
            ("bye", 0),
            (r#"{"retry_after_ms":99999999999}"#, 60_000),
        ] {
            assert_eq!(
                retry_after(reason),
                Duration::from_millis(pause_ms),
                "{reason}"
            );
        }
    }

    #[tokio::test]
    async fn after_a_cut_the_stream_goes_on_after_the_last_number_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ws_url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let resumes = Arc::new(Mutex::new(Vec::new()));
        let seen_by_server = resumes.clone();
        let server = tokio::spawn(async move {
            for (hello, events) in [
                (
                    7,
                    r#"[{"seq":8,"type":"TokensMinted"},{"seq":12,"type":"MintFinalized"}]"#,
                ),
                (20, r#"{"seq":13,"type":"TokensMinted"}"#),
            ] {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = accept_async(stream).await.unwrap();
                let hello = format!(r#"{{"type":"hello","connection_id":"c","seq":{hello}}}"#);
                socket.send(Frame::text(hello)).await.unwrap();
                let resume = socket.next().await.unwrap().unwrap();
                // The client's first ping may come before its `resume`.
                let resume = match resume {
                    Frame::Text(text) => text,
                    _ => socket.next().await.unwrap().unwrap().into_text().unwrap(),
                };
                seen_by_server.lock().unwrap().push(resume.to_string());
                socket.send(Frame::text(events)).await.unwrap();
                socket.close(None).await.unwrap();
            }
        });

        let stop = CancellationToken::new();
        let mut seen = Vec::new();
        let tokens = test_tokens();
        let target = Follow {
            ws_url,
            after: None,
        };
        let limit = Duration::from_secs(10);
        timeout(
            limit,
            follow(target, &tokens, &stop, |step| {
                if let FollowStep::Event { message, .. } = step {
                    seen.push(message.seq.unwrap());
                    if seen.len() == 3 {
                        stop.cancel();
                    }
                }
            }),
        )
        .await
        .unwrap()
        .unwrap();

        server.await.unwrap();
        assert_eq!(seen, [8, 12, 13]);
        assert_eq!(
            *resumes.lock().unwrap(),
            [
                r#"{"after":7,"type":"resume"}"#,
                r#"{"after":12,"type":"resume"}"#
            ]
        );
    }
}
