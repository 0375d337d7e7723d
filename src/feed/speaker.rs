//! What one client is sent: hello, then silence until it says where to go on, then everything from there.
//!
//! Invariant: `cursor` is the number up to which everything was sent, or was not for this client: what waits for the
//! client's pace is behind it. A client that goes on after it misses nothing.

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
use uuid::Uuid;

use super::allowance::Allowance;
use super::connection::{Heard, StreamLimits};
use super::ending::CloseReason;
use super::event::{FeedEvent, Seq};
use super::filter::Filter;
use super::follower::{Follower, Step};
use super::frames::{FRAME_EVENTS_MAX, frames};
use super::hub::Hub;
use super::protocol::{ClientMessage, ProtocolError, ServerMessage};
use super::viewer::Viewer;

/// A client that says nothing after hello is live after this time.
const SILENT_START: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(25);
/// A client whose buffer ran over while a frame waited to be taken has this time to take it. Without it a burst, which says
/// nothing about the client, would close connections that are quick enough.
const SLOW_GRACE: Duration = Duration::from_secs(2);

pub(super) struct Speaker<'a> {
    sink: &'a mut SplitSink<WebSocket, Message>,
    follower: Follower,
    filter: Filter,
    cursor: Seq,
    allowance: Allowance,
    next_ping: Instant,
}

impl<'a> Speaker<'a> {
    pub fn new(
        sink: &'a mut SplitSink<WebSocket, Message>,
        hub: Hub,
        viewer: Viewer,
        limits: StreamLimits,
    ) -> Speaker<'a> {
        let now = Instant::now();
        let follower = Follower::new(hub, viewer, limits.buffer_events);
        Speaker {
            sink,
            cursor: follower.position(),
            follower,
            filter: Filter::default(),
            allowance: Allowance::per_minute(limits.pushes_per_minute, now),
            next_ping: now + PING_EVERY,
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
        self.pass_on(heard).await
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
                    self.follower.start_after(after);
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

    /// Passes on what there was and what happens. Live events wait for the client's pace, replayed ones do not: it asked.
    async fn pass_on(
        &mut self,
        heard: &mut mpsc::Receiver<Heard>,
    ) -> Result<Infallible, CloseReason> {
        let mut waiting: Vec<Arc<FeedEvent>> = Vec::new();
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
                step = self.follower.next() => match step {
                    Ok(Step::Live(events)) => waiting.extend(self.chosen(events)),
                    Ok(Step::Replayed(events)) => {
                        waiting.extend(self.chosen(events));
                        self.send(std::mem::take(&mut waiting)).await?;
                    }
                    Ok(Step::Gap(gap)) => {
                        self.send(std::mem::take(&mut waiting)).await?;
                        self.say(ServerMessage::Gap(gap)).await?;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a stream ends: the event log could not be read");
                        return Err(CloseReason::LogUnavailable { last: self.cursor });
                    }
                },
                () = sleep_until(push_at.unwrap_or(now)), if !waiting.is_empty() => {}
                message = heard.recv() => self.answer(message.ok_or(CloseReason::Left)?).await?,
                () = sleep_until(self.next_ping) => self.ping().await?,
            }
            if waiting.is_empty() {
                self.cursor = self.follower.position();
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
        let left_behind = self.follower.left_behind();
        let too_slow = async {
            match left_behind {
                Some(left_behind) => left_behind.cancelled().await,
                None => std::future::pending().await,
            }
            sleep(SLOW_GRACE).await;
        };
        tokio::select! {
            put = self.sink.send(message) => put.map_err(|_| CloseReason::Left),
            () = too_slow => Err(CloseReason::TooSlow { last: self.cursor }),
        }
    }
}
