//! The hub: one reader of new events per process, and its listeners.
//!
//! Invariant: a listener that joined at a number is offered every later event that it may see, once and in order, until it
//! is left behind, which it is told. Kept by one lock over position, remembered events and listeners: nobody joins between
//! an event's being remembered and its being offered.
//!
//! A steady stream costs one query per process and batch, whoever listens. A listener that does not empty its buffer is
//! dropped, never waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{FeedEvent, Seq};
use super::log::{self, EventsPage};
use super::viewer::{self, Viewer};
use crate::db::within;
use crate::outbox::{EventType, Wake};
use crate::telemetry::{Stage, names, observe_stage};

/// Events read at once.
const EVENTS_AT_ONCE: u16 = 1_000;
/// Newest events that are remembered (about half a kilobyte each): what a listener misses while it connects again.
const RECENT_EVENTS_MAX: usize = 4_096;
/// For wake-ups that were lost.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// Of so many of the pool's connections, one serves listeners that read the log.
const REPLAYS_SHARE: u32 = 4;
/// After an error, most often a database that restarts.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Hands new events to this process's listeners; a clone is another handle.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    pool: PgPool,
    /// A page of the log that has not come by then is asked for again.
    limit: Duration,
    state: Mutex<State>,
    open_streams: AtomicU32,
    next_id: AtomicU64,
    /// Listeners that read the log at once: a crowd that resumes leaves the database to hub, sequencer and readings.
    replays: Semaphore,
}

#[derive(Default)]
struct State {
    /// Highest number that was offered.
    position: Seq,
    /// The newest events up to `position`, without holes.
    recent: VecDeque<Arc<FeedEvent>>,
    admins: Group,
    anonymous: Group,
    users: HashMap<String, Group>,
}

type Group = HashMap<u64, Subscriber>;

/// The hub's end of a listener.
struct Subscriber {
    /// The listener has what is up to here.
    after: Seq,
    events: mpsc::Sender<Arc<FeedEvent>>,
    detached: CancellationToken,
}

/// A listener's end: first `backlog`, then `events`. Dropping it leaves the hub.
pub(super) struct Subscription {
    /// What the hub remembered behind the cursor.
    pub backlog: Vec<Arc<FeedEvent>>,
    /// Ends, after what it still holds, once the listener is left behind.
    pub events: mpsc::Receiver<Arc<FeedEvent>>,
    /// Cancelled when the buffer ran over, or when the feed's numbers were found to have changed.
    pub detached: CancellationToken,
    hub: Hub,
    viewer: Viewer,
    id: u64,
}

impl Hub {
    /// Reads where the feed stands, and follows it from there until `stop`. `limit` is that of one look into the database.
    pub async fn start(
        pool: PgPool,
        wake: Wake,
        limit: Duration,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> sqlx::Result<Hub> {
        let head = sqlx::query_scalar("SELECT last_seq FROM feed_head").fetch_one(&pool);
        let head: i64 = within(limit, head).await?;
        let hub = Hub::at(pool, Seq::from_stored(head), limit);
        tracker.spawn(hub.clone().follow(wake, stop));
        Ok(hub)
    }

    /// Stands at a number; nothing is read.
    pub(crate) fn at(pool: PgPool, position: Seq, limit: Duration) -> Hub {
        let replays = (pool.options().get_max_connections() / REPLAYS_SHARE).max(1);
        Hub(Arc::new(Shared {
            pool,
            limit,
            replays: Semaphore::new(replays as usize),
            state: Mutex::new(State {
                position,
                ..State::default()
            }),
            open_streams: AtomicU32::new(0),
            next_id: AtomicU64::new(0),
        }))
    }

    /// A page of the log for one listener, who waits until it is its turn.
    pub(super) async fn replay(
        &self,
        viewer: &Viewer,
        after: Seq,
        events_max: u16,
    ) -> sqlx::Result<EventsPage> {
        let Shared {
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

    /// Highest number that this process has seen.
    pub fn position(&self) -> Seq {
        self.state().position
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in the room is half-changed by a panic that could be followed by harm: at worst listeners resume.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self, wake: Wake, stop: CancellationToken) {
        let mut woken = wake.feed();
        loop {
            // Seen before looking: whatever commits from here on wakes us again.
            woken.borrow_and_update();
            let pause = match self.publish_next_page().await {
                Ok(true) => continue,
                Ok(false) => POLL_EVERY,
                Err(error) => {
                    tracing::warn!(%error, "new events could not be read; trying again");
                    PAUSE_AFTER_ERROR
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = woken.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads and offers one page; true when more may follow.
    async fn publish_next_page(&self) -> sqlx::Result<bool> {
        let position = self.position();
        let page = log::page(&self.0.pool, &Viewer::Admin, position, EVENTS_AT_ONCE);
        let page = within(self.0.limit, page).await?;
        if let Some(gap) = page.gap {
            tracing::error!(
                %position, from = %gap.from, to = %gap.to,
                "the feed's numbers do not continue where this process stood; all listeners resume"
            );
            self.state().reset(if position > page.last_seq {
                page.last_seq
            } else {
                gap.to
            });
            return Ok(true);
        }
        observe_delivery(&page.events);
        let full = page.full;
        self.state().publish(page.events);
        Ok(full)
    }

    /// Listens from `after` on; `None` when the hub does not remember everything since then.
    pub(super) fn subscribe(
        &self,
        viewer: &Viewer,
        after: Seq,
        buffer: usize,
    ) -> Option<Subscription> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel(buffer);
        let detached = CancellationToken::new();
        let mut state = self.state();
        let backlog = state.recent_after(after, viewer)?;
        state.group(viewer).insert(
            id,
            Subscriber {
                after,
                events: sender,
                detached: detached.clone(),
            },
        );
        Some(Subscription {
            backlog,
            events,
            detached,
            hub: self.clone(),
            viewer: viewer.clone(),
            id,
        })
    }

    /// Streams that are open, or about to be.
    pub fn open_streams(&self) -> u32 {
        self.0.open_streams.load(Ordering::Acquire)
    }

    /// A place for one more stream, if fewer than `streams_max` are taken.
    pub fn stream_permit(&self, kind: StreamKind, streams_max: u32) -> Option<StreamPermit> {
        self.0
            .open_streams
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < streams_max).then_some(taken + 1)
            })
            .ok()?;
        metrics::counter!(kind.opened()).increment(1);
        metrics::gauge!(kind.active()).increment(1.0);
        Some(StreamPermit {
            hub: self.clone(),
            kind,
        })
    }
}

/// What a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    WebSocket,
    ServerSentEvents,
}

impl StreamKind {
    /// The counter of those that were opened.
    const fn opened(self) -> &'static str {
        match self {
            StreamKind::WebSocket => names::WEBSOCKET_CONNECTIONS,
            StreamKind::ServerSentEvents => names::SSE_STREAMS,
        }
    }

    /// The gauge of those that are open.
    const fn active(self) -> &'static str {
        match self {
            StreamKind::WebSocket => names::WEBSOCKET_ACTIVE,
            StreamKind::ServerSentEvents => names::SSE_ACTIVE,
        }
    }
}

/// A stream's place; dropping it makes room for another.
pub struct StreamPermit {
    hub: Hub,
    kind: StreamKind,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.hub.0.open_streams.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!(self.kind.active()).decrement(1.0);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.state().unsubscribe(&self.viewer, self.id);
    }
}

impl State {
    fn publish(&mut self, events: Vec<FeedEvent>) {
        for event in events {
            let event = Arc::new(event);
            self.position = event.seq;
            if self.recent.len() == RECENT_EVENTS_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(Arc::clone(&event));
            deliver(&mut self.admins, &event);
            if viewer::is_public(&event) {
                deliver(&mut self.anonymous, &event);
            }
            if let Some(group) = event
                .owner
                .as_ref()
                .and_then(|owner| self.users.get_mut(owner))
            {
                deliver(group, &event);
            }
        }
    }

    /// Forgets everything: whoever listens finds in the log what became of its numbers.
    fn reset(&mut self, position: Seq) {
        self.position = position;
        self.recent.clear();
        let groups = [&mut self.admins, &mut self.anonymous];
        for group in groups.into_iter().chain(self.users.values_mut()) {
            for (_, subscriber) in group.drain() {
                subscriber.detached.cancel();
            }
        }
        self.users.clear();
    }

    /// `None` when something after the number is forgotten.
    fn recent_after(&self, after: Seq, viewer: &Viewer) -> Option<Vec<Arc<FeedEvent>>> {
        let oldest = self
            .recent
            .front()
            .map_or(self.position.next(), |event| event.seq);
        if after.next() < oldest {
            return None;
        }
        let known = usize::try_from(after.next().get() - oldest.get()).ok()?;
        let backlog = self.recent.iter().skip(known);
        Some(
            backlog
                .filter(|event| viewer.may_see(event))
                .cloned()
                .collect(),
        )
    }

    fn group(&mut self, viewer: &Viewer) -> &mut Group {
        match viewer {
            Viewer::Admin => &mut self.admins,
            Viewer::Anonymous => &mut self.anonymous,
            Viewer::User(subject) => self.users.entry(subject.clone()).or_default(),
        }
    }

    fn unsubscribe(&mut self, viewer: &Viewer, id: u64) {
        let group = self.group(viewer);
        group.remove(&id);
        if group.is_empty()
            && let Viewer::User(subject) = viewer
        {
            self.users.remove(subject);
        }
    }
}

fn deliver(group: &mut Group, event: &Arc<FeedEvent>) {
    group.retain(|_, subscriber| {
        if event.seq <= subscriber.after {
            return true;
        }
        let taken = subscriber.events.try_send(Arc::clone(event)).is_ok();
        if !taken {
            subscriber.detached.cancel();
            metrics::counter!(names::FEED_OVERFLOWS).increment(1);
        }
        taken
    });
}

fn observe_delivery(events: &[FeedEvent]) {
    let now = Utc::now();
    // Two machines' clocks may differ by more than an event takes.
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

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    const BUFFER: usize = 4;

    fn hub(position: i64) -> Hub {
        let pool = PgPool::connect_lazy("postgres://nobody@localhost/nowhere").unwrap();
        Hub::at(pool, Seq::from_stored(position), Duration::from_secs(60))
    }

    fn publish(hub: &Hub, numbers: impl IntoIterator<Item = i64>) {
        let events = numbers
            .into_iter()
            .map(|seq| {
                let owner = if seq % 2 == 0 { "even" } else { "odd" };
                event(seq, "TokensMinted", Some(owner), r#"{"id":"x"}"#)
            })
            .collect();
        hub.state().publish(events);
    }

    fn user(subject: &str) -> Viewer {
        Viewer::User(subject.to_owned())
    }

    fn subscribe(hub: &Hub, viewer: &Viewer, after: i64) -> Option<Subscription> {
        hub.subscribe(viewer, Seq::from_stored(after), BUFFER)
    }

    /// Everything that has arrived.
    fn numbers(live: &mut Subscription) -> Vec<i64> {
        let mut numbers: Vec<i64> = live.backlog.drain(..).map(|e| e.seq.get()).collect();
        while let Ok(event) = live.events.try_recv() {
            numbers.push(event.seq.get());
        }
        numbers
    }

    #[tokio::test]
    async fn who_joins_gets_what_is_remembered_and_then_what_comes() {
        let hub = hub(10);
        publish(&hub, 11..=14);
        let mut even = subscribe(&hub, &user("even"), 11).unwrap();
        let mut admin = subscribe(&hub, &Viewer::Admin, 13).unwrap();
        let mut anonymous = subscribe(&hub, &Viewer::Anonymous, 10).unwrap();
        publish(&hub, 15..=16);
        assert_eq!(numbers(&mut even), [12, 14, 16]);
        assert_eq!(numbers(&mut admin), [14, 15, 16]);
        assert!(numbers(&mut anonymous).is_empty());
        assert!(subscribe(&hub, &Viewer::Admin, 10).is_some());
        assert!(
            subscribe(&hub, &Viewer::Admin, 9).is_none(),
            "10 was never read"
        );
    }

    #[tokio::test]
    async fn a_cursor_that_another_process_gave_is_waited_for() {
        let hub = hub(10);
        let mut live = subscribe(&hub, &Viewer::Admin, 12).unwrap();
        publish(&hub, 11..=13);
        assert_eq!(numbers(&mut live), [13]);
    }

    #[tokio::test]
    async fn only_the_newest_are_remembered() {
        let hub = hub(0);
        publish(&hub, 1..=RECENT_EVENTS_MAX as i64 + 5);
        assert!(subscribe(&hub, &Viewer::Admin, 4).is_none());
        let live = subscribe(&hub, &Viewer::Admin, 5).unwrap();
        assert_eq!(live.backlog.len(), RECENT_EVENTS_MAX);
        assert_eq!(live.backlog[0].seq.get(), 6);
    }

    #[tokio::test]
    async fn who_does_not_take_its_events_is_left_behind_without_a_hole() {
        let hub = hub(0);
        let mut slow = subscribe(&hub, &Viewer::Admin, 0).unwrap();
        let mut quick = subscribe(&hub, &user("odd"), 0).unwrap();
        publish(&hub, 1..=BUFFER as i64);
        assert!(!slow.detached.is_cancelled());
        publish(&hub, 5..=7);
        assert!(slow.detached.is_cancelled());
        assert_eq!(numbers(&mut slow), [1, 2, 3, 4]);
        assert!(slow.events.recv().await.is_none(), "nothing follows");
        assert_eq!(numbers(&mut quick), [1, 3, 5, 7]);
        assert!(!quick.detached.is_cancelled());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_who_left() {
        let hub = hub(0);
        let subscriptions = [user("odd"), user("odd"), Viewer::Admin, Viewer::Anonymous]
            .map(|viewer| subscribe(&hub, &viewer, 0).unwrap());
        assert_eq!(hub.state().users["odd"].len(), 2);
        drop(subscriptions);
        let state = hub.state();
        assert!(state.users.is_empty() && state.admins.is_empty() && state.anonymous.is_empty());
    }

    #[tokio::test]
    async fn starting_over_tells_everyone() {
        let hub = hub(0);
        publish(&hub, 1..=3);
        let subscriptions =
            [user("odd"), Viewer::Admin].map(|viewer| subscribe(&hub, &viewer, 3).unwrap());
        hub.state().reset(Seq::from_stored(1));
        assert!(
            subscriptions
                .iter()
                .all(|live| live.detached.is_cancelled())
        );
        assert_eq!(hub.position().get(), 1);
        assert!(
            subscribe(&hub, &Viewer::Admin, 0).is_none(),
            "what was remembered is gone"
        );
    }

    #[tokio::test]
    async fn seats_are_counted_exactly() {
        let hub = hub(0);
        let permit = |kind| hub.stream_permit(kind, 2);
        let first = permit(StreamKind::WebSocket).unwrap();
        let second = permit(StreamKind::ServerSentEvents).unwrap();
        assert!(permit(StreamKind::WebSocket).is_none());
        drop(first);
        let third = permit(StreamKind::WebSocket).unwrap();
        assert!(permit(StreamKind::ServerSentEvents).is_none());
        drop((second, third));
        assert_eq!(hub.0.open_streams.load(Ordering::Acquire), 0);
    }
}
