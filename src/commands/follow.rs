//! Follows the event feed as any client can: connects, resumes after the last number it received, and reconnects when cut off.
//!
//! Invariant: the caller receives every event of its subject from the first `hello` on, once and in order, however often the
//! connection breaks. Kept by the server's numbering: each connection begins with `resume` after the last number received.
//! Events that are no longer kept break it, and are reported as a [`FollowStep::Gap`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Error as SocketError, http::StatusCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tokens::TokenSource;
use crate::domain::{Backoff, Jitter, Retries};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A silent feed is pinged this often …
const PING_PERIOD: Duration = Duration::from_secs(20);
/// … and the connection is closed when nothing at all arrived for three of these periods.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const RECONNECT_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5))
        .with_jitter(Jitter::HALF_TO_FULL);
/// The longest pause before a reconnect that the service may request.
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
    pub waiting_mints: Option<u64>,
}

impl FeedMessage {
    /// When the event happened; now when it has no timestamp.
    pub fn happened_at(&self) -> DateTime<Utc> {
        self.timestamp
            .as_deref()
            .and_then(|timestamp| DateTime::parse_from_rfc3339(timestamp).ok())
            .map_or_else(Utc::now, |timestamp| timestamp.to_utc())
    }
}

/// An event of the feed, or of the connection to it.
#[derive(Debug)]
pub enum FollowStep<'a> {
    /// Live; `resumed_after` is the number of the last event that was received before.
    Connected {
        resumed_after: Option<i64>,
    },
    /// An event, parsed and as received.
    Event {
        message: Box<FeedMessage>,
        raw: &'a str,
    },
    /// Events between two numbers are no longer kept: the server reports which.
    Gap {
        raw: &'a str,
    },
    /// The server refused a message of this client, or sent one of an unknown type.
    Remark {
        raw: &'a str,
    },
    Disconnected {
        reason: String,
        retry_in: Duration,
    },
}

/// Following ended permanently: a retry would fail again.
#[derive(Debug, Error)]
pub enum FollowError {
    #[error("the event feed at {ws_url} refused the token ({status})")]
    Refused { ws_url: String, status: StatusCode },
    #[error("{ws_url:?} is not a WebSocket address: {detail}")]
    Address { ws_url: String, detail: String },
}

/// The feed to follow, and the number to follow it from.
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
    let mut last_received_seq = follow.after;
    let mut retries = Retries::new(RECONNECT_BACKOFF);
    loop {
        let connection = listen_once(
            &follow.ws_url,
            tokens,
            &mut last_received_seq,
            &mut retries,
            &mut on,
        );
        let ended = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = connection => ended,
        };
        let (reason, retry_after) = match ended {
            Ended::ForGood(error) => return Err(error),
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
    /// By the service, which requests a pause before the reconnect.
    Closed {
        reason: String,
        retry_after: Duration,
    },
    ForGood(FollowError),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One connection, from the handshake to its end.
async fn listen_once(
    ws_url: &str,
    tokens: &TokenSource,
    last_received_seq: &mut Option<i64>,
    retries: &mut Retries,
    on: &mut impl FnMut(FollowStep<'_>),
) -> Ended {
    let mut socket = match open(ws_url, tokens).await {
        Ok(socket) => socket,
        Err(ended) => return ended,
    };
    let mut ping = interval(PING_PERIOD);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_received = Instant::now();
    loop {
        let frame = tokio::select! {
            frame = socket.next() => frame,
            _ = ping.tick() => {
                if last_received.elapsed() > SILENCE_LIMIT {
                    return Ended::CutOff(format!("nothing received for {SILENCE_LIMIT:?}"));
                }
                if let Err(error) = socket.send(Frame::Ping(Default::default())).await {
                    return Ended::CutOff(error.to_string());
                }
                continue;
            }
        };
        last_received = Instant::now();
        let text = match text_of(frame) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(ended) => return ended,
        };
        for raw in messages_of(&text) {
            match serde_json::from_str::<FeedMessage>(raw) {
                Ok(hello) if hello.r#type == "hello" => {
                    let resumed_after = *last_received_seq;
                    if let Err(ended) = resume(&mut socket, last_received_seq, hello.seq).await {
                        return ended;
                    }
                    retries.reset();
                    on(FollowStep::Connected { resumed_after });
                }
                Ok(message) if message.r#type == "gap" => on(FollowStep::Gap { raw }),
                Ok(message) if message.seq.is_some() => {
                    *last_received_seq = message.seq;
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

async fn open(ws_url: &str, tokens: &TokenSource) -> Result<Socket, Ended> {
    let mut request = ws_url.into_client_request().map_err(|error| {
        Ended::ForGood(FollowError::Address {
            ws_url: ws_url.to_owned(),
            detail: error.to_string(),
        })
    })?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", tokens.token()))
        .map_err(|error| Ended::CutOff(format!("the token fits no header: {error}")))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    match timeout(CONNECT_LIMIT, connect_async(request)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Http(answer)))
            if matches!(
                answer.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) =>
        {
            Err(Ended::ForGood(FollowError::Refused {
                ws_url: ws_url.to_owned(),
                status: answer.status(),
            }))
        }
        Ok(Err(error)) => Err(Ended::CutOff(error.to_string())),
        Err(_) => Err(Ended::CutOff(format!("no answer within {CONNECT_LIMIT:?}"))),
    }
}

/// The text of a frame; `None` for one that carries no messages.
fn text_of(frame: Option<Result<Frame, SocketError>>) -> Result<Option<Utf8Bytes>, Ended> {
    match frame {
        Some(Ok(Frame::Text(text))) => Ok(Some(text)),
        Some(Ok(Frame::Close(Some(close)))) => Err(Ended::Closed {
            reason: format!(
                "the service closed the stream: {} {}",
                close.code, close.reason
            ),
            retry_after: retry_after(&close.reason),
        }),
        Some(Ok(Frame::Close(None))) => {
            Err(Ended::CutOff("the service closed the stream".to_owned()))
        }
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(Ended::CutOff(error.to_string())),
        None => Err(Ended::CutOff("the connection ended".to_owned())),
    }
}

/// Resumes after the last number received, or, on the first connection, from the moment of its `hello`. Without a `resume` the
/// stream would stay silent for five seconds.
async fn resume(
    socket: &mut Socket,
    last_received_seq: &mut Option<i64>,
    hello_seq: Option<i64>,
) -> Result<(), Ended> {
    let after = last_received_seq.or(hello_seq).unwrap_or_default();
    *last_received_seq = Some(after);
    let resume = serde_json::json!({ "type": "resume", "after": after });
    socket
        .send(Frame::text(resume.to_string()))
        .await
        .map_err(|error| Ended::CutOff(error.to_string()))
}

/// The pause that a close frame's reason requests; zero when the reason has another format.
fn retry_after(reason: &str) -> Duration {
    #[derive(Default, Deserialize)]
    struct CloseReason {
        #[serde(default)]
        retry_after_ms: u64,
    }
    let parsed: CloseReason = serde_json::from_str(reason).unwrap_or_default();
    Duration::from_millis(parsed.retry_after_ms).min(RETRY_AFTER_LIMIT)
}

/// The messages of a frame, which contains one or an array of them.
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
    fn a_frame_contains_one_message_or_an_array_of_them() {
        assert_eq!(messages_of(r#"{"type":"hello"}"#), [r#"{"type":"hello"}"#]);
        assert_eq!(
            messages_of(r#"[{"seq":1,"type":"a"}, {"seq":2,"type":"b"}]"#),
            [r#"{"seq":1,"type":"a"}"#, r#"{"seq":2,"type":"b"}"#]
        );
    }

    #[test]
    fn a_service_may_request_a_pause_up_to_the_limit() {
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
    async fn after_a_cut_the_stream_continues_after_the_last_number_received() {
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
