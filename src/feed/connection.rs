//! One WebSocket: everything that may end it, side by side with what it is sent.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use chrono::{DateTime, Utc};
use futures_util::stream::SplitStream;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ending::{CloseReason, close_frame};
use super::hub::Hub;
use super::protocol::{ClientMessage, ProtocolError};
use super::speaker::Speaker;
use super::viewer::Viewer;
use crate::telemetry::names;

/// Who is at the other end, and until when.
#[derive(Clone, Debug)]
pub struct Listener {
    pub viewer: Viewer,
    /// The token's end; `None` without a token.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Limits of one stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE
    pub pushes_per_minute: u32,
    /// WEBSOCKET_EVENT_BUFFER_SIZE
    pub buffer_events: usize,
}

/// A peer that was pinged three times in vain is dead; a dead one is let go within 90 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(80);
/// Messages that wait to be answered. Each is answered at once unless the client does not read the answers.
const UNANSWERED_MAX: usize = 64;
/// For the close frame, and the client's answer to it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// A client that was too slow is likely to be so now: its last number is worth waiting for.
const CLOSE_LIMIT_SLOW: Duration = Duration::from_secs(20);

pub(super) type Heard = Result<ClientMessage, ProtocolError>;

/// Serves an authenticated socket to its end: hello, replay, live events, farewell.
pub async fn serve_socket(
    socket: WebSocket,
    hub: Hub,
    listener: Listener,
    limits: StreamLimits,
    stop: CancellationToken,
) {
    let connection_id = Uuid::now_v7();
    let (mut sink, mut stream) = socket.split();
    let (signs_of_life, last_sign) = watch::channel(());
    let (heard, to_answer) = mpsc::channel(UNANSWERED_MAX);
    let speaker = Speaker::new(&mut sink, hub, listener.viewer, limits);
    let reason = tokio::select! {
        biased;
        () = stop.cancelled() => CloseReason::GoingAway,
        () = end_of_token(listener.expires_at) => CloseReason::TokenExpired,
        reason = hear(&mut stream, &signs_of_life, heard) => reason,
        () = silence(last_sign) => CloseReason::Silent,
        reason = speaker.speak(connection_id, to_answer) => reason,
    };
    tracing::debug!(%connection_id, ?reason, "a stream ends");
    end(&mut sink, &mut stream, &reason).await;
}

/// Ends a socket that is not being served, with the reason's close frame.
pub async fn close(socket: WebSocket, reason: &CloseReason) {
    let (mut sink, mut stream) = socket.split();
    end(&mut sink, &mut stream, reason).await;
}

/// Sleeps until the token ends; for ever without one.
pub async fn end_of_token(expires_at: Option<DateTime<Utc>>) {
    /// A timer holds two years at most, and a suspended machine's timers are late: looked at again in between.
    const LOOK_EVERY: Duration = Duration::from_secs(60);
    let Some(expires_at) = expires_at else {
        return std::future::pending().await;
    };
    // No time left, or a negative one, is the end.
    while let Ok(left) = (expires_at - Utc::now()).to_std()
        && !left.is_zero()
    {
        sleep(left.min(LOOK_EVERY)).await;
    }
}

/// Reads until the client leaves or misbehaves. Pings are answered by the library while we read.
async fn hear(
    stream: &mut SplitStream<WebSocket>,
    signs_of_life: &watch::Sender<()>,
    heard: mpsc::Sender<Heard>,
) -> CloseReason {
    while let Some(message) = stream.next().await {
        signs_of_life.send_replace(());
        let message = match message {
            Ok(Message::Text(text)) => ClientMessage::parse(&text),
            Ok(Message::Binary(_)) => Err(ProtocolError::Binary),
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => return CloseReason::Left,
            Err(error) => return CloseReason::from(error),
        };
        if heard.try_send(message).is_err() {
            return CloseReason::TooTalkative;
        }
    }
    CloseReason::Left
}

/// Returns once there was no sign of life for too long.
async fn silence(mut last_sign: watch::Receiver<()>) {
    while let Ok(Ok(())) = timeout(SILENCE_LIMIT, last_sign.changed()).await {}
}

async fn end(
    sink: &mut (impl Sink<Message> + Unpin),
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    reason: &CloseReason,
) {
    if reason.is_error() {
        metrics::counter!(names::WEBSOCKET_ERRORS).increment(1);
    }
    if *reason == CloseReason::Silent {
        return;
    }
    let limit = match reason {
        CloseReason::TooSlow { .. } => CLOSE_LIMIT_SLOW,
        _ => CLOSE_LIMIT,
    };
    // A client that does not take its farewell in time is cut off.
    let _ = timeout(limit, say_goodbye(sink, stream, close_frame(reason))).await;
}

/// Sends the close frame, if it is ours to send, and reads what is left: a connection that is dropped with unread bytes is
/// reset, and the client would lose the frame.
async fn say_goodbye(
    sink: &mut (impl Sink<Message> + Unpin),
    stream: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    frame: Option<CloseFrame>,
) {
    if let Some(frame) = frame
        && sink.send(Message::Close(Some(frame))).await.is_err()
    {
        return;
    }
    while let Some(Ok(_)) = stream.next().await {}
}
