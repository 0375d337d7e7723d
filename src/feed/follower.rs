//! Follows the feed from a number on: first the log, then the hub, and back to the log when it was left behind.
//!
//! Invariant: `position` is the number up to which everything was given. It moves only forward, over events that were read
//! in order, except to the feed's head when it was ahead of that.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::event::{FeedEvent, Seq};
use super::hub::{Hub, Subscription};
use super::log::Gap;
use super::viewer::Viewer;

/// Events in one step at most.
pub const STEP_EVENTS_MAX: u16 = 500;

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// These numbers cannot be given; what there is follows.
    Gap(Gap),
    /// From the log or the hub's memory: it was there before it was asked for. May be empty.
    Replayed(Vec<Arc<FeedEvent>>),
    /// As it happens.
    Live(Vec<Arc<FeedEvent>>),
}

/// One listener's way through the feed.
pub struct Follower {
    hub: Hub,
    viewer: Viewer,
    /// Live events that may wait in memory.
    buffer: usize,
    position: Seq,
    /// Whether `position` is known to be a number that this feed gave.
    was_given: bool,
    /// Read together with a gap that goes first.
    behind_gap: Option<(Vec<Arc<FeedEvent>>, Seq)>,
    live: Option<Subscription>,
}

impl Follower {
    /// From where the hub stands.
    pub fn new(hub: Hub, viewer: Viewer, buffer: usize) -> Follower {
        Follower {
            position: hub.position(),
            was_given: true,
            hub,
            viewer,
            buffer,
            behind_gap: None,
            live: None,
        }
    }

    /// Everything up to here was given, as far as this viewer may see it.
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Goes on after a number that a client names. To be called before the first step.
    pub fn start_after(&mut self, after: Seq) {
        self.position = after;
        // One ahead of this process may come from another that was quicker, or be invented: the log knows.
        self.was_given = after <= self.hub.position();
    }

    /// Cancelled when the hub has left this follower behind; `None` while it reads the log.
    pub fn detached(&self) -> Option<CancellationToken> {
        self.live.as_ref().map(|live| live.detached.clone())
    }

    /// The next step, whenever that is. A call that is cancelled loses nothing.
    pub async fn next(&mut self) -> sqlx::Result<Step> {
        loop {
            if let Some((events, position)) = self.behind_gap.take() {
                self.position = position;
                return Ok(Step::Replayed(events));
            }
            let Some(live) = &mut self.live else {
                if self.was_given && self.join() {
                    continue;
                }
                return self.read_log().await;
            };
            if !live.backlog.is_empty() {
                let rest = live
                    .backlog
                    .split_off(live.backlog.len().min(STEP_EVENTS_MAX.into()));
                let events = std::mem::replace(&mut live.backlog, rest);
                self.move_to_last_of(&events);
                return Ok(Step::Replayed(events));
            }
            let mut events = Vec::new();
            let count = live.events.recv_many(&mut events, STEP_EVENTS_MAX.into());
            if count.await > 0 {
                self.move_to_last_of(&events);
                return Ok(Step::Live(events));
            }
            // Left behind, after everything that was offered until then: the log goes on from there. It also tells
            // whether the feed's numbers still are what they were.
            self.live = None;
            self.was_given = self.position <= self.hub.position();
        }
    }

    fn join(&mut self) -> bool {
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
        self.was_given = true;
        Ok(match page.gap {
            Some(gap) => {
                self.position = gap.to.min(page.last_seq);
                self.behind_gap = Some((events, read_to));
                Step::Gap(gap)
            }
            None => {
                self.position = read_to;
                Step::Replayed(events)
            }
        })
    }

    fn move_to_last_of(&mut self, events: &[Arc<FeedEvent>]) {
        if let Some(last) = events.last() {
            self.position = last.seq;
        }
    }
}
