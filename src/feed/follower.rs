//! Follows the feed from a number on: first the log, then the hub, and the log again after the hub has detached it.
//!
//! Invariant: every event up to `position` that this viewer may see was returned. `position` moves only forward, over events that
//! were read in order; the exception is a position ahead of the feed's head, which moves back to the head.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::event::{FeedEvent, Seq};
use super::hub::Hub;
use super::log::Gap;
use super::subscribers::Subscription;
use super::viewer::Viewer;

/// Most events in one step.
pub const STEP_EVENTS_MAX: u16 = 500;

/// The next step of following.
#[derive(Debug)]
pub enum Step {
    /// These numbers cannot be delivered; the events after them follow.
    Gap(Gap),
    /// Events from the log or the hub's memory, older than the request. May be empty.
    Replayed(Vec<Arc<FeedEvent>>),
    /// Events as they happen.
    Live(Vec<Arc<FeedEvent>>),
}

/// One listener's path through the feed.
pub struct Follower {
    hub: Hub,
    viewer: Viewer,
    /// Live events that may wait in memory.
    buffer: usize,
    position: Seq,
    /// Whether this feed is known to have assigned `position`.
    position_is_known: bool,
    /// Events and position that were read together with a gap, which is returned first.
    after_gap: Option<(Vec<Arc<FeedEvent>>, Seq)>,
    live: Option<Subscription>,
}

impl Follower {
    /// Starts at the hub's position.
    pub fn new(hub: Hub, viewer: Viewer, buffer: usize) -> Follower {
        Follower {
            position: hub.position(),
            position_is_known: true,
            hub,
            viewer,
            buffer,
            after_gap: None,
            live: None,
        }
    }

    /// Every event up to here that this viewer may see was returned.
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Starts after a number that a client names. Must be called before the first step.
    pub fn start_after(&mut self, after: Seq) {
        self.position = after;
        // A number ahead of this process may come from a process that is faster, or be invented: the log decides.
        self.position_is_known = after <= self.hub.position();
    }

    /// Cancelled when the hub detaches this follower; `None` while it reads the log.
    pub fn detached(&self) -> Option<CancellationToken> {
        self.live.as_ref().map(|live| live.detached.clone())
    }

    /// Waits for the next step. A call that is cancelled loses nothing.
    pub async fn next(&mut self) -> sqlx::Result<Step> {
        loop {
            if let Some((events, position)) = self.after_gap.take() {
                self.position = position;
                return Ok(Step::Replayed(events));
            }
            let Some(live) = &mut self.live else {
                if self.position_is_known && self.subscribe() {
                    continue;
                }
                return self.read_log().await;
            };
            if !live.backlog.is_empty() {
                let rest = live
                    .backlog
                    .split_off(live.backlog.len().min(STEP_EVENTS_MAX.into()));
                let events = std::mem::replace(&mut live.backlog, rest);
                self.advance_to_last(&events);
                return Ok(Step::Replayed(events));
            }
            let mut events = Vec::new();
            let count = live.events.recv_many(&mut events, STEP_EVENTS_MAX.into());
            if count.await > 0 {
                self.advance_to_last(&events);
                return Ok(Step::Live(events));
            }
            // Detached, after every event that was offered until then: the log continues from there. It also shows whether
            // the feed's numbers have changed.
            self.live = None;
            self.position_is_known = self.position <= self.hub.position();
        }
    }

    fn subscribe(&mut self) -> bool {
        self.live = self.hub.subscribe(&self.viewer, self.position, self.buffer);
        self.live.is_some()
    }

    async fn read_log(&mut self) -> sqlx::Result<Step> {
        let page = self
            .hub
            .replay(&self.viewer, self.position, STEP_EVENTS_MAX)
            .await?;
        let read_to = page.next_cursor();
        let events = page.events.into_iter().map(Arc::new).collect();
        self.position_is_known = true;
        Ok(match page.gap {
            Some(gap) => {
                self.position = gap.to.min(page.last_seq);
                self.after_gap = Some((events, read_to));
                Step::Gap(gap)
            }
            None => {
                self.position = read_to;
                Step::Replayed(events)
            }
        })
    }

    fn advance_to_last(&mut self, events: &[Arc<FeedEvent>]) {
        if let Some(last) = events.last() {
            self.position = last.seq;
        }
    }
}
