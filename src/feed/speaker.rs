//! What one client is sent: hello, then silence until it says where to go on, then everything from there.
//!
//! Invariant: `cursor` is the number up to which everything was sent, or was not for this client. It moves only forward,
//! and only over events that were read in order from the log or from the hub.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use chrono::Utc;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::allowance::Allowance;
use super::connection::{Heard, StreamLimits};
use super::ending::CloseReason;
use super::event::{FeedEvent, Seq};
use super::filter::Filter;
use super::frames::{FRAME_EVENTS_MAX, frames};
use super::hub::{Hub, Live};
use super::log;
use super::protocol::{ClientMessage, ProtocolError, ServerMessage};
use super::viewer::Viewer;

/// A client that says nothing after hello is live after this time.
const SILENT_START: Duration = Duration::from_secs(5);
/// Events read at once in a replay: one frame.
const REPLAY_PAGE: u16 = FRAME_EVENTS_MAX as u16;
const PING_EVERY: Duration = Duration::from_secs(25);
/// A client whose buffer ran over while a frame waited to be taken has this time to take it. Without it a burst, which says
/// nothing about the client, would close connections that are quick enough.
const SLOW_GRACE: Duration = Duration::from_secs(2);

pub(super) struct Speaker<'a> {
    sink: &'a mut SplitSink<WebSocket, Message>,
    hub: Hub,
    viewer: Viewer,
    limits: StreamLimits,
    filter: Filter,
    cursor: Seq,
    allowance: Allowance,
    next_ping: Instant,
    /// Of the present time with the hub.
    left_behind: CancellationToken,
}

impl<'a> Speaker<'a> {
    pub fn new(
        sink: &'a mut SplitSink<WebSocket, Message>,
        hub: Hub,
        viewer: Viewer,
        limits: StreamLimits,
    ) -> Speaker<'a> {
        let now = Instant::now();
        Speaker {
            cursor: hub.position(),
            sink,
            hub,
            viewer,
            limits,
            filter: Filter::default(),
            allowance: Allowance::per_minute(limits.pushes_per_minute, now),
            next_ping: now + PING_EVERY,
            left_behind: CancellationToken::new(),
        }
    }

    /// Speaks until the client cannot be spoken to any more.
    pub async fn speak(
        mut self,
        connection_id: Uuid,
        mut heard: mpsc::Receiver<Heard>,
    ) -> CloseReason {
        match self.tell_everything(connection_id, &mut heard).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }

    async fn tell_everything(
        &mut self,
        connection_id: Uuid,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<Infallible, CloseReason> {
        self.say(ServerMessage::hello(connection_id, self.cursor, Utc::now()))
            .await?;
        self.await_start(heard).await?;
        loop {
            let live = self.catch_up(heard).await?;
            self.follow(live, heard).await?;
        }
    }

    /// Waits until the client says where to go on; from hello's number if it does not.
    async fn await_start(&mut self, heard: &mut mpsc::Receiver<Heard>) -> Result<(), CloseReason> {
        let silent_until = Instant::now() + SILENT_START;
        loop {
            let message = tokio::select! {
                () = sleep_until(silent_until) => return Ok(()),
                message = heard.recv() => message.ok_or(CloseReason::Left)?,
            };
            let refused = match message {
                Ok(ClientMessage::Resume { after, filter }) => {
                    self.cursor = after;
                    self.filter = filter.unwrap_or_default();
                    return Ok(());
                }
                Ok(ClientMessage::Subscribe { filter }) => {
                    self.filter = filter;
                    return Ok(());
                }
                Ok(ClientMessage::Auth { .. }) => ProtocolError::AuthenticatedAlready,
                Err(error) => error,
            };
            self.say(refused.into()).await?;
        }
    }

    /// Replays from the log until the hub remembers everything behind the cursor, and joins it there.
    async fn catch_up(&mut self, heard: &mut mpsc::Receiver<Heard>) -> Result<Live, CloseReason> {
        self.left_behind = CancellationToken::new();
        // A cursor ahead of this process may come from another one that was quicker: only the log knows whether such a
        // number was given.
        let mut was_given = self.cursor <= self.hub.position();
        loop {
            if was_given && let Some(live) = self.join() {
                return Ok(live);
            }
            while let Ok(message) = heard.try_recv() {
                self.answer(message).await?;
            }
            let page = log::page(self.hub.pool(), &self.viewer, self.cursor, REPLAY_PAGE)
                .await
                .map_err(|error| {
                    tracing::warn!(%error, "a stream ends: the event log could not be read");
                    CloseReason::LogUnavailable { last: self.cursor }
                })?;
            if let Some(gap) = page.gap {
                self.say(ServerMessage::Gap(gap)).await?;
            }
            let cursor = page.next_cursor();
            let events = page.events.into_iter().map(Arc::new).collect();
            self.send(self.chosen(events)).await?;
            self.cursor = cursor;
            was_given = true;
        }
    }

    fn join(&mut self) -> Option<Live> {
        let live = self
            .hub
            .join(&self.viewer, self.cursor, self.limits.buffer_events)?;
        self.left_behind = live.left_behind.clone();
        Some(live)
    }

    /// Passes on what the hub offers, until it leaves this listener behind.
    async fn follow(
        &mut self,
        mut live: Live,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<(), CloseReason> {
        let backlog = std::mem::take(&mut live.backlog);
        if let Some(last) = backlog.last().map(|event| event.seq) {
            self.send(self.chosen(backlog)).await?;
            self.cursor = last;
        }
        let mut waiting: Vec<Arc<FeedEvent>> = Vec::new();
        let mut arrived = Vec::new();
        loop {
            let now = Instant::now();
            let push_at = self.allowance.wait_until(now);
            // A frame that is full goes out in any case: holding it back would only make the buffer run over.
            if !waiting.is_empty() && (push_at.is_none() || waiting.len() >= FRAME_EVENTS_MAX) {
                self.allowance.pushed(now);
                self.send(std::mem::take(&mut waiting)).await?;
                continue;
            }
            tokio::select! {
                count = live.events.recv_many(&mut arrived, FRAME_EVENTS_MAX - waiting.len()) => {
                    if count == 0 {
                        // Left behind. What was offered before is whole, so the log goes on from its end.
                        return self.send(waiting).await;
                    }
                    let last = arrived.last().map(|event| event.seq);
                    waiting.extend(self.chosen(std::mem::take(&mut arrived)));
                    if waiting.is_empty() {
                        self.cursor = last.unwrap_or(self.cursor);
                    }
                }
                () = sleep_until(push_at.unwrap_or(now)), if !waiting.is_empty() => {}
                message = heard.recv() => self.answer(message.ok_or(CloseReason::Left)?).await?,
                () = sleep_until(self.next_ping) => self.ping().await?,
            }
        }
    }

    /// Those that the client asked for.
    fn chosen(&self, mut events: Vec<Arc<FeedEvent>>) -> Vec<Arc<FeedEvent>> {
        events.retain(|event| self.filter.passes(event));
        events
    }

    async fn answer(&mut self, heard: Heard) -> Result<(), CloseReason> {
        let refused = match heard {
            Ok(ClientMessage::Subscribe { filter }) => {
                self.filter = filter;
                return Ok(());
            }
            Ok(ClientMessage::Resume { .. }) => ProtocolError::LiveAlready,
            Ok(ClientMessage::Auth { .. }) => ProtocolError::AuthenticatedAlready,
            Err(error) => error,
        };
        self.say(refused.into()).await
    }

    async fn say(&mut self, message: ServerMessage) -> Result<(), CloseReason> {
        self.put(Message::Text(message.to_text().into())).await
    }

    async fn ping(&mut self) -> Result<(), CloseReason> {
        self.next_ping = Instant::now() + PING_EVERY;
        self.put(Message::Ping(Bytes::new())).await
    }

    /// Events in as few frames as they fit into; the cursor moves with each.
    async fn send(&mut self, events: Vec<Arc<FeedEvent>>) -> Result<(), CloseReason> {
        for frame in frames(&events) {
            if self.next_ping <= Instant::now() {
                self.ping().await?;
            }
            // Moved first: what is put is in the socket's buffer, and a client that still reads the farewell has read it.
            self.cursor = frame.last;
            self.put(Message::Text(frame.text)).await?;
        }
        Ok(())
    }

    async fn put(&mut self, message: Message) -> Result<(), CloseReason> {
        let too_slow = async {
            self.left_behind.cancelled().await;
            sleep(SLOW_GRACE).await;
        };
        tokio::select! {
            put = self.sink.send(message) => put.map_err(|_| CloseReason::Left),
            () = too_slow => Err(CloseReason::TooSlow { last: self.cursor }),
        }
    }
}
