//! What one client is sent: hello, then silence until it says where to go on, then everything from there.
//!
//! Invariant: `cursor` is the number up to which everything was sent, or was not for this client: what waits for the
//! client's pace is behind it. A client that goes on after it misses nothing.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::close_reason::CloseReason;
use super::connection::{ClientInput, StreamLimits};
use super::event::{FeedEvent, Seq};
use super::filter::Filter;
use super::follower::{Follower, Step};
use super::frames::{FRAME_EVENTS_MAX, frames};
use super::hub::Hub;
use super::protocol::{ClientMessage, ProtocolError, ServerMessage};
use super::push_pacer::PushPacer;
use super::viewer::Viewer;
use crate::websocket::{Packing, Text, Writer};

/// A client that says nothing after hello is live after this time.
const SILENT_START: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(25);
/// A client whose buffer ran over while a frame waited to be taken has this time to take it. Without it a burst, which says
/// nothing about the client, would close connections that are quick enough.
const SLOW_GRACE: Duration = Duration::from_secs(2);
/// Whatever the reason is that a frame is not taken, a client that goes on so is too slow.
const WRITE_LIMIT: Duration = Duration::from_secs(60);
/// Messages that were not understood; a client with so many is not going to be.
const BAD_MESSAGES_MAX: u32 = 20;

/// Why nothing more is said.
pub(super) enum Stop {
    Close(CloseReason),
    /// A listener without a token shows one, before it asked for anything.
    Authenticate {
        token: String,
    },
}

impl From<CloseReason> for Stop {
    fn from(reason: CloseReason) -> Stop {
        Stop::Close(reason)
    }
}

pub(super) struct StreamSession<'a> {
    writer: &'a mut Writer,
    is_anonymous: bool,
    follower: Follower,
    /// `None`: no events are wanted.
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

    /// Runs until the client cannot be spoken to any more.
    pub async fn run(
        mut self,
        connection_id: Uuid,
        mut heard: mpsc::Receiver<Box<ClientInput>>,
    ) -> Stop {
        match self.try_run(connection_id, &mut heard).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn try_run(
        &mut self,
        connection_id: Uuid,
        heard: &mut mpsc::Receiver<Box<ClientInput>>,
    ) -> Result<Infallible, Stop> {
        self.send_message(ServerMessage::hello(connection_id, self.cursor, Utc::now()))
            .await?;
        self.await_start(heard).await?;
        Ok(self.forward(heard).await?)
    }

    /// Waits until the client says where to go on; from hello's number if it does not.
    async fn await_start(
        &mut self,
        heard: &mut mpsc::Receiver<Box<ClientInput>>,
    ) -> Result<(), Stop> {
        let silent_until = Instant::now() + SILENT_START;
        loop {
            let heard = tokio::select! {
                () = sleep_until(silent_until) => return Ok(()),
                heard = heard.recv() => heard.ok_or(CloseReason::Gone)?,
            };
            match *heard {
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
                    return Err(Stop::Authenticate { token });
                }
                other => self.handle(other).await?,
            }
        }
    }

    /// Passes on what there was and what happens. Live events wait for the client's pace, replayed ones do not: it asked.
    async fn forward(
        &mut self,
        heard: &mut mpsc::Receiver<Box<ClientInput>>,
    ) -> Result<Infallible, CloseReason> {
        let mut waiting: Vec<Arc<FeedEvent>> = Vec::new();
        loop {
            let now = Instant::now();
            let push_at = self.pacer.next_push_at(now);
            // A frame that is full goes out in any case: holding it back would only make the buffer run over.
            if !waiting.is_empty() && (push_at.is_none() || waiting.len() >= FRAME_EVENTS_MAX) {
                self.pacer.record_push(now);
                self.send(std::mem::take(&mut waiting), Packing::Shared)
                    .await?;
                continue;
            }
            tokio::select! {
                step = self.follower.next() => match step {
                    Ok(Step::Live(events)) => waiting.extend(self.chosen(events)),
                    Ok(Step::Replayed(events)) => {
                        waiting.extend(self.chosen(events));
                        // Few others ask for the same.
                        self.send(std::mem::take(&mut waiting), Packing::Together).await?;
                    }
                    Ok(Step::Gap(gap)) => {
                        self.send(std::mem::take(&mut waiting), Packing::Shared).await?;
                        self.send_message(ServerMessage::Gap(gap)).await?;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a stream ends: the event log could not be read");
                        return Err(CloseReason::LogUnavailable { last: self.cursor });
                    }
                },
                () = sleep_until(push_at.unwrap_or(now)), if !waiting.is_empty() => {}
                heard = heard.recv() => {
                    let heard = heard.ok_or(CloseReason::Gone)?;
                    if heard.changes_filter() && !waiting.is_empty() {
                        // Chosen by the filter that was there, and nothing of it comes behind the new one.
                        self.pacer.record_push(now);
                        self.send(std::mem::take(&mut waiting), Packing::Shared).await?;
                    }
                    self.handle(*heard).await?;
                }
                () = sleep_until(self.next_ping) => self.ping().await?,
            }
            if waiting.is_empty() {
                self.cursor = self.follower.position();
            }
        }
    }

    /// Those that the client asked for.
    fn chosen(&self, mut events: Vec<Arc<FeedEvent>>) -> Vec<Arc<FeedEvent>> {
        match &self.filter {
            Some(filter) => events.retain(|event| filter.passes(event)),
            None => events.clear(),
        }
        events
    }

    /// Does what can be done at any time.
    async fn handle(&mut self, heard: ClientInput) -> Result<(), CloseReason> {
        let refused = match heard {
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
            return Err(CloseReason::BadMessages(refused.to_string()));
        }
        self.send_message(refused.into()).await
    }

    async fn send_message(&mut self, message: ServerMessage) -> Result<(), CloseReason> {
        let frame = Text::new(&message.to_text()).frame(self.writer.compression());
        self.put(async |writer| writer.send(frame).await).await
    }

    async fn ping(&mut self) -> Result<(), CloseReason> {
        self.next_ping = Instant::now() + PING_EVERY;
        self.put(Writer::ping).await
    }

    async fn pong(&mut self, payload: Bytes) -> Result<(), CloseReason> {
        self.put(async |writer| writer.pong(&payload).await).await
    }

    /// Events in as few frames as they fit into; the cursor moves with each.
    async fn send(
        &mut self,
        events: Vec<Arc<FeedEvent>>,
        packing: Packing,
    ) -> Result<(), CloseReason> {
        for frame in frames(&events, self.writer.compression(), packing) {
            if self.next_ping <= Instant::now() {
                self.ping().await?;
            }
            crate::failpoint!("feed.before_frame");
            // Moved first: what is put comes before the farewell, and a client that reads the farewell has read it.
            self.cursor = frame.last;
            self.put(async |writer| writer.send(frame.bytes).await)
                .await?;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        put: impl AsyncFnOnce(&mut Writer) -> io::Result<()>,
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
            put = put(self.writer) => put.map_err(|_| CloseReason::Gone),
            () = too_slow => Err(CloseReason::TooSlow { last: self.cursor }),
            () = sleep(WRITE_LIMIT) => Err(CloseReason::TooSlow { last: self.cursor }),
        }
    }
}
