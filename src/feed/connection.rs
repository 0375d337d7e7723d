//! One WebSocket: everything that may end it, side by side with what it is sent.

use std::time::Duration;

use axum::body::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::close_reason::CloseReason;
use super::drain_schedule::DrainSchedule;
use super::hub::Hub;
use super::protocol::{ClientMessage, ProtocolError};
use super::push_pacer::PushPacer;
use super::stream_session::{Stop, StreamSession};
use super::viewer::Viewer;
use crate::websocket::{Incoming, Reader, Socket, Writer};

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
/// Messages that wait to be answered, of 64 KiB each at most. Each is answered at once unless the client does not read the
/// answers.
const UNANSWERED_MAX: usize = 8;
/// Messages, pings and pongs of a client. It has little to say: a ping each second, and a filter now and then.
const CLIENT_MESSAGES_PER_MINUTE: u32 = 240;
/// For the close frame, and the client's answer to it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// A client that was too slow is likely to be so now: its last number is worth waiting for.
const CLOSE_LIMIT_SLOW: Duration = Duration::from_secs(20);

/// What there is to be answered.
#[derive(Debug)]
pub(super) enum ClientInput {
    Message(Result<ClientMessage, ProtocolError>),
    Ping(Bytes),
}

impl ClientInput {
    pub fn changes_filter(&self) -> bool {
        matches!(
            self,
            ClientInput::Message(Ok(
                ClientMessage::Subscribe { .. } | ClientMessage::Unsubscribe
            ))
        )
    }
}

/// Serves a socket to its end: hello, replay, live events, farewell. Or to the token that an anonymous listener shows before it
/// asks for anything: then the socket comes back with it, to be served anew.
pub async fn serve_socket(
    mut socket: Socket,
    hub: Hub,
    listener: Listener,
    limits: StreamLimits,
    drain_schedule: DrainSchedule,
) -> Option<(Socket, String)> {
    crate::failpoint!("feed.stream_opened");
    let connection_id = Uuid::now_v7();
    let (signs_of_life, last_sign) = watch::channel(());
    // Boxed: the channel has its first places ready, for each of ten thousand.
    let (heard, to_answer) = mpsc::channel::<Box<ClientInput>>(UNANSWERED_MAX);
    let Socket { reader, writer } = &mut socket;
    let session = StreamSession::new(writer, hub.clone(), listener.viewer, limits);
    let stop = tokio::select! {
        biased;
        retry_after = drain_schedule.wait_for_turn(&hub) => CloseReason::GoingAway { retry_after }.into(),
        () = end_of_token(listener.expires_at) => CloseReason::TokenExpired.into(),
        reason = hear(reader, &signs_of_life, heard) => reason.into(),
        () = silence(last_sign) => CloseReason::Silent.into(),
        stop = session.run(connection_id, to_answer) => stop,
    };
    match stop {
        Stop::Close(reason) => {
            tracing::debug!(%connection_id, ?reason, "a stream ends");
            close(socket, &reason).await;
            None
        }
        Stop::Authenticate { token } => Some((socket, token)),
    }
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

/// Reads until the client leaves or misbehaves.
async fn hear(
    reader: &mut Reader,
    signs_of_life: &watch::Sender<()>,
    heard: mpsc::Sender<Box<ClientInput>>,
) -> CloseReason {
    let mut pacer = PushPacer::per_minute(CLIENT_MESSAGES_PER_MINUTE, Instant::now());
    loop {
        let incoming = match reader.next().await {
            Ok(incoming) => incoming,
            Err(fault) => return fault.into(),
        };
        signs_of_life.send_replace(());
        let now = Instant::now();
        if pacer.next_push_at(now).is_some() {
            return CloseReason::TooManyMessages;
        }
        pacer.record_push(now);
        let message = match incoming {
            Incoming::Text(text) => ClientInput::Message(ClientMessage::parse(&text)),
            Incoming::Binary => ClientInput::Message(Err(ProtocolError::Binary)),
            Incoming::Ping(payload) => ClientInput::Ping(payload),
            Incoming::Pong => continue,
            Incoming::Close(closing) => return CloseReason::Left(closing),
        };
        if heard.try_send(Box::new(message)).is_err() {
            return CloseReason::Unanswered;
        }
        // Several may have come in one go: each is answered before the next is read, if the client takes answers.
        tokio::task::yield_now().await;
    }
}

/// Returns once there was no sign of life for too long.
async fn silence(mut last_sign: watch::Receiver<()>) {
    while let Ok(Ok(())) = timeout(SILENCE_LIMIT, last_sign.changed()).await {}
}

/// Ends a socket with the reason's close frame.
pub async fn close(mut socket: Socket, reason: &CloseReason) {
    reason.count();
    let Some((code, told)) = reason.close_frame() else {
        return;
    };
    let limit = match reason {
        CloseReason::TooSlow { .. } => CLOSE_LIMIT_SLOW,
        _ => CLOSE_LIMIT,
    };
    // A client that does not take its farewell in time is cut off.
    let Socket { reader, writer } = &mut socket;
    let _ = timeout(limit, say_goodbye(reader, writer, code, &told, reason)).await;
}

/// Sends the close frame and reads what is left: a connection that is dropped with unread bytes is reset, and the client
/// would lose the frame.
async fn say_goodbye(
    reader: &mut Reader,
    writer: &mut Writer,
    code: u16,
    told: &str,
    reason: &CloseReason,
) {
    if writer.close(code, told).await.is_err() || writer.finish().await.is_err() {
        return;
    }
    // Whoever closed first, or speaks another language, says nothing that we wait for.
    if matches!(reason, CloseReason::Left(_)) {
        return;
    }
    reader.drain().await;
}
