//! One WebSocket from hello to the close frame: everything that may end it, side by side with its session.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::client_input;
use super::close_frame::CloseFrame;
use super::close_reason::CloseReason;
use super::drain_schedule::DrainSchedule;
use super::hub::Hub;
use super::stream_session::{SessionEnd, StreamLimits, StreamSession};
use super::viewer::Viewer;
use crate::websocket::{Socket, Writer};

/// The receiver of a stream, and until when it may receive.
#[derive(Clone, Debug)]
pub struct Listener {
    pub viewer: Viewer,
    /// When the token expires; `None` without a token.
    pub expires_at: Option<DateTime<Utc>>,
}

/// For sending the close frame and receiving the client's answer to it.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// The same for a client that was too slow and probably still is: it needs the close frame, which has its last number.
const CLOSE_LIMIT_SLOW: Duration = Duration::from_secs(20);

/// Serves a socket to its end: hello, replay, live events, close frame. If an anonymous client sends a token before it requests
/// anything, returns the socket and the token instead, to be served again as the token's subject.
pub async fn serve_socket(
    mut socket: Socket,
    hub: Hub,
    listener: Listener,
    limits: StreamLimits,
    drain_schedule: DrainSchedule,
) -> Option<(Socket, String)> {
    crate::failpoint!("feed.stream_opened");
    let connection_id = Uuid::now_v7();
    let (sink, inputs, activity) = client_input::channel();
    let Socket { reader, writer } = &mut socket;
    let session = StreamSession::new(writer, hub.clone(), listener.viewer, limits);
    let end = tokio::select! {
        biased;
        retry_after = drain_schedule.wait_for_turn(&hub) => CloseReason::GoingAway { retry_after }.into(),
        () = end_of_token(listener.expires_at) => CloseReason::TokenExpired.into(),
        reason = client_input::read(reader, sink) => reason.into(),
        () = activity.ended() => CloseReason::Silent.into(),
        end = session.run(connection_id, inputs) => end,
    };
    match end {
        SessionEnd::Close(reason) => {
            tracing::debug!(%connection_id, ?reason, "stream ended");
            close(socket, &reason).await;
            None
        }
        SessionEnd::Authenticate { token } => Some((socket, token)),
    }
}

/// Sleeps until the token expires; indefinitely without a token.
pub async fn end_of_token(expires_at: Option<DateTime<Utc>>) {
    /// The clock is read again this often: a timer holds at most two years, and the timers of a suspended machine are late.
    const CHECK_EVERY: Duration = Duration::from_secs(60);
    let Some(expires_at) = expires_at else {
        return std::future::pending().await;
    };
    // A negative time cannot be converted: the token has expired.
    while let Ok(left) = (expires_at - Utc::now()).to_std()
        && !left.is_zero()
    {
        sleep(left.min(CHECK_EVERY)).await;
    }
}

/// Closes a socket with the reason's close frame. A client that does not take it in time is cut off.
pub async fn close(mut socket: Socket, reason: &CloseReason) {
    reason.count();
    let Some(frame) = CloseFrame::new(reason) else {
        return;
    };
    let limit = match reason {
        CloseReason::TooSlow { .. } => CLOSE_LIMIT_SLOW,
        _ => CLOSE_LIMIT,
    };
    let Socket { reader, writer } = &mut socket;
    let _ = timeout(limit, async {
        let is_sent = send_close_frame(writer, &frame).await.is_ok();
        // The kernel resets a connection that is dropped with unread bytes, and the client would lose the close frame. A client
        // that closed first sends nothing more.
        if is_sent && !matches!(reason, CloseReason::Left(_)) {
            reader.drain().await;
        }
    })
    .await;
}

async fn send_close_frame(writer: &mut Writer, frame: &CloseFrame) -> std::io::Result<()> {
    writer.close(frame.code, &frame.reason).await?;
    writer.finish().await
}
