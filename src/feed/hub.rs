//! The hub: one reader of new events per process, for all its listeners.
//!
//! It reads new numbers once, in order, and publishes them to its [`Subscribers`]: a steady stream costs one query per process and
//! batch, however many clients listen. It also limits how many listeners read the log at once, so that many clients that resume
//! leave database connections to the rest of the process.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use sqlx::PgPool;
use tokio::sync::Semaphore;

use super::event::{FeedEvent, Seq};
use super::head;
use super::log::{self, EventsPage};
use super::stream_permit::{StreamKind, StreamPermit, StreamPermits};
use super::subscribers::{Subscribers, Subscription};
use super::viewer::Viewer;
use crate::db::within;
use crate::outbox::{EventType, Wake, WakeUps};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::{Stage, names, observe_stage};

/// Events in one page that the hub reads.
const PAGE_EVENTS_MAX: u16 = 1_000;
/// Poll interval, for wake-ups that were lost.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// One in this many of the pool's connections serves listeners that read the log.
const REPLAYS_SHARE: u32 = 4;

/// Delivers new events to this process's listeners. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<HubInner>);

struct HubInner {
    pool: PgPool,
    /// Time limit of one query.
    limit: Duration,
    subscribers: Subscribers,
    permits: StreamPermits,
    /// Listeners that read the log at the same time.
    replays: Semaphore,
}

impl Hub {
    /// Starts at the feed's head. `limit` is that of one query. The hub reads nothing before its [`task`](Self::task) runs.
    pub async fn open(pool: PgPool, limit: Duration) -> sqlx::Result<Hub> {
        let position = within(limit, head::last_seq(&pool)).await?;
        Ok(Hub::at(pool, position, limit))
    }

    /// Reads new events when the sequencer has numbered some, and on a period.
    pub fn task(&self, wake: &Wake) -> PeriodicTask {
        let reader = HubReader {
            hub: self.clone(),
            numbered: wake.feed(),
            more_may_follow: false,
        };
        let timing = Timing::new("event hub", POLL_EVERY).with_limit(self.0.limit);
        PeriodicTask::new(timing, reader)
    }

    /// A hub with this number as its position, which reads nothing.
    pub(crate) fn at(pool: PgPool, position: Seq, limit: Duration) -> Hub {
        let replays = (pool.options().get_max_connections() / REPLAYS_SHARE).max(1);
        Hub(Arc::new(HubInner {
            pool,
            limit,
            subscribers: Subscribers::new(position),
            permits: StreamPermits::default(),
            // A pool's size, and usize has at least 32 bits.
            replays: Semaphore::new(replays as usize),
        }))
    }

    /// Highest number that this process has read.
    pub fn position(&self) -> Seq {
        self.0.subscribers.position()
    }

    /// Subscribes from `after` on; `None` if the hub does not remember every event since then.
    pub(super) fn subscribe(
        &self,
        viewer: &Viewer,
        after: Seq,
        buffer: usize,
    ) -> Option<Subscription> {
        self.0.subscribers.subscribe(viewer, after, buffer)
    }

    /// A page of the log for one listener, which waits for its turn.
    pub(super) async fn replay(
        &self,
        viewer: &Viewer,
        after: Seq,
        events_max: u16,
    ) -> sqlx::Result<EventsPage> {
        let HubInner {
            pool,
            limit,
            replays,
            ..
        } = &*self.0;
        within(*limit, async {
            let _turn = replays
                .acquire()
                .await
                .map_err(|_| sqlx::Error::PoolClosed)?;
            log::page(pool, viewer, after, events_max).await
        })
        .await
    }

    /// Streams that are open or about to open.
    pub fn open_streams(&self) -> u32 {
        self.0.permits.taken()
    }

    /// A permit for one more stream, if fewer than `streams_max` are open.
    pub fn stream_permit(&self, kind: StreamKind, streams_max: u32) -> Option<StreamPermit> {
        self.0.permits.acquire(kind, streams_max)
    }

    /// Reads and publishes one page; true if more events may follow.
    async fn publish_next_page(&self) -> sqlx::Result<bool> {
        let position = self.position();
        let page = log::page(&self.0.pool, &Viewer::Admin, position, PAGE_EVENTS_MAX).await?;
        if let Some(gap) = page.gap {
            tracing::error!(
                %position, from = %gap.from, to = %gap.to,
                "feed numbers changed; all listeners resume"
            );
            self.0.subscribers.reset(if position > page.last_seq {
                page.last_seq
            } else {
                gap.to
            });
            return Ok(true);
        }
        observe_delivery(&page.events);
        let full = page.full;
        self.0.subscribers.publish(page.events);
        Ok(full)
    }
}

/// Reads new events for the hub, a page in each run.
struct HubReader {
    hub: Hub,
    numbered: WakeUps,
    more_may_follow: bool,
}

impl Periodic for HubReader {
    async fn run(&mut self) -> Result<(), RunError> {
        self.more_may_follow = false;
        self.more_may_follow = self.hub.publish_next_page().await?;
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        self.more_may_follow.then_some(Duration::ZERO)
    }

    async fn woken(&mut self) {
        self.numbered.next().await;
    }
}

fn observe_delivery(events: &[FeedEvent]) {
    let now = Utc::now();
    // The clocks of two machines may differ by more than an event takes.
    let positive = |age: TimeDelta| age.to_std().unwrap_or_default();
    for event in events {
        metrics::histogram!(names::FEED_DELIVERY_SECONDS).record(positive(event.age(now)));
        if event.event_type == EventType::TokensMinted.as_str()
            && let Some(age) = event.reading_age(now)
        {
            observe_stage(Stage::Delivered, positive(age));
        }
    }
}
