//! Sends one client its messages: hello, then, once it has chosen where to start, every event from there.
//!
//! Invariant: every event up to `cursor` was sent, or was not for this client; events that wait for the client's pace are after
//! it. A client that resumes after `cursor` misses nothing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use chrono::Utc;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::client_input::{ClientInput, ClientInputs};
use super::client_message::{ClientMessage, ProtocolError};
use super::close_reason::CloseReason;
use super::event::{FeedEvent, Seq};
use super::filter::Filter;
use super::follower::{Follower, Step};
use super::frames::{FRAME_EVENTS_MAX, frames};
use super::hub::Hub;
use super::push_pacer::PushPacer;
use super::server_message::ServerMessage;
use super::viewer::Viewer;
use crate::websocket::{ArrayCompression, Text, Writer};

/// A client that sends nothing after hello is live after this time.
const START_LIMIT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(25);
/// A client whose buffer overflowed while a frame was being written has this time to read the frame. Without it a burst, which
/// does not mean that the client is slow, would close connections that are fast enough.
const SLOW_GRACE: Duration = Duration::from_secs(2);
/// Longest time to write one frame: a client that blocks longer is too slow, whatever the reason.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Messages that could not be followed: a client that sent this many will not send a correct one.
const BAD_MESSAGES_MAX: u32 = 20;

/// Limits of one stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE
    pub pushes_per_minute: u32,
    /// WEBSOCKET_EVENT_BUFFER_SIZE
    pub buffer_events: usize,
}

/// The reason for which a session ends.
pub(super) enum SessionEnd {
    Close(CloseReason),
    /// A client without a token sends one before it requests anything.
    Authenticate {
        token: String,
    },
}

impl From<CloseReason> for SessionEnd {
    fn from(reason: CloseReason) -> SessionEnd {
        SessionEnd::Close(reason)
    }
}

/// The messages of one client's stream, in order.
pub(super) struct StreamSession<'a> {
    writer: &'a mut Writer,
    is_anonymous: bool,
    follower: Follower,
    /// `None`: the client has unsubscribed.
    filter: Option<Filter>,
    cursor: Seq,
    pacer: PushPacer,
    next_ping: Instant,
    bad_messages: u32,
}

impl<'a> StreamSession<'a> {
    pub fn new(
        writer: &'a mut Writer,
        hub: Hub,
        viewer: Viewer,
        limits: StreamLimits,
    ) -> StreamSession<'a> {
        let now = Instant::now();
        let is_anonymous = viewer == Viewer::Anonymous;
        let follower = Follower::new(hub, viewer, limits.buffer_events);
        StreamSession {
            writer,
            is_anonymous,
            cursor: follower.position(),
            follower,
            filter: Some(Filter::default()),
            pacer: PushPacer::per_minute(limits.pushes_per_minute, now),
            next_ping: now + PING_EVERY,
            bad_messages: 0,
        }
    }

    /// Serves the client until its session ends.
    pub async fn run(mut self, connection_id: Uuid, mut inputs: ClientInputs) -> SessionEnd {
        match self.serve(connection_id, &mut inputs).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn serve(
        &mut self,
        connection_id: Uuid,
        inputs: &mut ClientInputs,
    ) -> Result<Infallible, SessionEnd> {
        let hello = ServerMessage::hello(connection_id, self.cursor, Utc::now());
        self.send_message(hello).await?;
        self.await_start(inputs).await?;
        Ok(self.forward(inputs).await?)
    }

    /// Waits until the client chooses where to start; after [`START_LIMIT`] the stream starts at hello's number.
    async fn await_start(&mut self, inputs: &mut ClientInputs) -> Result<(), SessionEnd> {
        let starts_at = Instant::now() + START_LIMIT;
        loop {
            let input = tokio::select! {
                () = sleep_until(starts_at) => return Ok(()),
                input = inputs.recv() => input.ok_or(CloseReason::Gone)?,
            };
            match *input {
                ClientInput::Message(Ok(ClientMessage::Resume { after, filter })) => {
                    self.follower.start_after(after);
                    self.cursor = after;
                    self.filter = Some(filter.unwrap_or_default());
                    return Ok(());
                }
                ClientInput::Message(Ok(ClientMessage::Subscribe { filter })) => {
                    self.filter = Some(filter);
                    return Ok(());
                }
                ClientInput::Message(Ok(ClientMessage::Auth { token })) if self.is_anonymous => {
                    return Err(SessionEnd::Authenticate { token });
                }
                other => self.handle(other).await?,
            }
        }
    }

    /// Forwards past and new events. Live events wait for the client's pace; replayed ones do not, because the client requested
    /// them.
    async fn forward(&mut self, inputs: &mut ClientInputs) -> Result<Infallible, CloseReason> {
        let mut waiting: Vec<Arc<FeedEvent>> = Vec::new();
        loop {
            let now = Instant::now();
            let push_at = self.pacer.next_push_at(now);
            // A full frame is sent in any case: holding it back would only overflow the buffer.
            if !waiting.is_empty() && (push_at.is_none() || waiting.len() >= FRAME_EVENTS_MAX) {
                self.pacer.record_push(now);
                self.send_events(&mut waiting, ArrayCompression::Concatenated)
                    .await?;
                continue;
            }
            tokio::select! {
                step = self.follower.next() => self.take_step(step, &mut waiting).await?,
                () = sleep_until(push_at.unwrap_or(now)), if !waiting.is_empty() => {}
                input = inputs.recv() => {
                    let input = input.ok_or(CloseReason::Gone)?;
                    if input.changes_filter() && !waiting.is_empty() {
                        // These events passed the current filter, so they precede the new one.
                        self.pacer.record_push(now);
                        self.send_events(&mut waiting, ArrayCompression::Concatenated).await?;
                    }
                    self.handle(*input).await?;
                }
                () = sleep_until(self.next_ping) => self.ping().await?,
            }
            if waiting.is_empty() {
                self.cursor = self.follower.position();
            }
        }
    }

    /// Adds the step's events that pass the filter to those that wait, and sends them at once unless they are live.
    async fn take_step(
        &mut self,
        step: sqlx::Result<Step>,
        waiting: &mut Vec<Arc<FeedEvent>>,
    ) -> Result<(), CloseReason> {
        match step {
            Ok(Step::Live(events)) => {
                waiting.extend(self.filtered(events));
                Ok(())
            }
            Ok(Step::Replayed(events)) => {
                waiting.extend(self.filtered(events));
                // Few other clients request the same events.
                self.send_events(waiting, ArrayCompression::Recompressed)
                    .await
            }
            Ok(Step::Gap(gap)) => {
                self.send_events(waiting, ArrayCompression::Concatenated)
                    .await?;
                self.send_message(ServerMessage::Gap(gap)).await
            }
            Err(error) => {
                tracing::warn!(%error, "stream ended: the event log could not be read");
                Err(CloseReason::LogUnavailable { last: self.cursor })
            }
        }
    }

    fn filtered(&self, mut events: Vec<Arc<FeedEvent>>) -> Vec<Arc<FeedEvent>> {
        match &self.filter {
            Some(filter) => events.retain(|event| filter.passes(event)),
            None => events.clear(),
        }
        events
    }

    /// Handles input that is allowed at any time; answers anything else with an error.
    async fn handle(&mut self, input: ClientInput) -> Result<(), CloseReason> {
        let error = match input {
            ClientInput::Ping(payload) => return self.pong(payload).await,
            ClientInput::Message(Ok(ClientMessage::Ping)) => {
                return self.send_message(ServerMessage::pong(Utc::now())).await;
            }
            ClientInput::Message(Ok(ClientMessage::Subscribe { filter })) => {
                self.filter = Some(filter);
                return Ok(());
            }
            ClientInput::Message(Ok(ClientMessage::Unsubscribe)) => {
                self.filter = None;
                return Ok(());
            }
            ClientInput::Message(Ok(ClientMessage::Resume { .. })) => ProtocolError::LiveAlready,
            ClientInput::Message(Ok(ClientMessage::Auth { .. })) => {
                ProtocolError::AuthenticatedAlready
            }
            ClientInput::Message(Err(ProtocolError::FilterTooLong)) => {
                return Err(CloseReason::FilterTooLong);
            }
            ClientInput::Message(Err(error)) => error,
        };
        self.bad_messages += 1;
        if self.bad_messages >= BAD_MESSAGES_MAX {
            return Err(CloseReason::BadMessages(error));
        }
        self.send_message(error.into()).await
    }

    async fn send_message(&mut self, message: ServerMessage) -> Result<(), CloseReason> {
        let frame = Text::new(&message.to_text()).frame(self.writer.compression());
        self.write(async |writer| writer.send(frame).await).await
    }

    async fn ping(&mut self) -> Result<(), CloseReason> {
        self.next_ping = Instant::now() + PING_EVERY;
        self.write(Writer::ping).await
    }

    async fn pong(&mut self, payload: Bytes) -> Result<(), CloseReason> {
        self.write(async |writer| writer.pong(&payload).await).await
    }

    /// Sends all waiting events in as few frames as possible; the cursor moves with each frame.
    async fn send_events(
        &mut self,
        waiting: &mut Vec<Arc<FeedEvent>>,
        array_compression: ArrayCompression,
    ) -> Result<(), CloseReason> {
        let events = std::mem::take(waiting);
        for frame in frames(&events, self.writer.compression(), array_compression) {
            if self.next_ping <= Instant::now() {
                self.ping().await?;
            }
            crate::failpoint!("feed.before_frame");
            // Moved first: this frame precedes the close frame, and a client that reads the close frame has read this one.
            self.cursor = frame.last;
            self.write(async |writer| writer.send(frame.bytes).await)
                .await?;
        }
        Ok(())
    }

    /// Writes a frame, unless the client is too slow to take it.
    async fn write(
        &mut self,
        write: impl AsyncFnOnce(&mut Writer) -> io::Result<()>,
    ) -> Result<(), CloseReason> {
        let detached = self.follower.detached();
        let too_slow = async {
            match detached {
                Some(detached) => detached.cancelled().await,
                None => std::future::pending().await,
            }
            sleep(SLOW_GRACE).await;
        };
        tokio::select! {
            written = write(self.writer) => written.map_err(|_| CloseReason::Gone),
            () = too_slow => Err(CloseReason::TooSlow { last: self.cursor }),
            () = sleep(WRITE_LIMIT) => Err(CloseReason::TooSlow { last: self.cursor }),
        }
    }
}
