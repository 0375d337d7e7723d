//! The listeners of the hub, and the newest events that it remembers for them.
//!
//! Invariant: a subscriber that joined after a number is offered every later event that it may see, once and in order, until it
//! is detached, which it learns. Kept by one lock over position, recent events and subscribers: no subscriber joins between
//! the step that remembers an event and the step that offers it.
//!
//! A subscriber that does not empty its buffer is detached, never waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::event::{FeedEvent, Seq};
use super::viewer::Viewer;
use crate::telemetry::names;

/// Newest events that are remembered (about half a kilobyte each): what a listener misses while it reconnects.
const RECENT_EVENTS_MAX: usize = 4_096;

/// All subscribers of this process. Clones share them.
#[derive(Clone)]
pub(super) struct Subscribers(Arc<SubscriberTable>);

struct SubscriberTable {
    state: Mutex<State>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Highest number that was offered.
    position: Seq,
    /// The newest events up to `position`, without holes.
    recent: VecDeque<Arc<FeedEvent>>,
    /// Subscribers, grouped by what they may see: an event costs no more than its receivers.
    groups: HashMap<Viewer, Group>,
}

type Group = HashMap<u64, Subscriber>;

/// The hub's end of a subscription.
struct Subscriber {
    /// The subscriber has everything up to here.
    after: Seq,
    events: mpsc::Sender<Arc<FeedEvent>>,
    detached: CancellationToken,
}

/// A listener's end: first `backlog`, then `events`. Dropping it ends the subscription.
pub(super) struct Subscription {
    /// The recent events after the listener's number.
    pub backlog: Vec<Arc<FeedEvent>>,
    /// Ends, after the events that it still holds, once the subscriber is detached.
    pub events: mpsc::Receiver<Arc<FeedEvent>>,
    /// Cancelled when the buffer overflowed, or when the feed's numbers turned out to have changed.
    pub detached: CancellationToken,
    subscribers: Subscribers,
    viewer: Viewer,
    id: u64,
}

impl Subscribers {
    pub fn new(position: Seq) -> Subscribers {
        Subscribers(Arc::new(SubscriberTable {
            state: Mutex::new(State {
                position,
                ..State::default()
            }),
            next_id: AtomicU64::new(0),
        }))
    }

    /// Highest number that was offered.
    pub fn position(&self) -> Seq {
        self.state().position
    }

    /// Remembers these events, which follow `position` without a hole, and offers them to the subscribers that may see them.
    pub fn publish(&self, events: Vec<FeedEvent>) {
        self.state().publish(events);
    }

    /// Forgets everything and detaches every subscriber: each finds in the log what happened to its numbers.
    pub fn reset(&self, position: Seq) {
        self.state().reset(position);
    }

    /// Subscribes from `after` on; `None` if an event after that number is no longer remembered.
    pub fn subscribe(&self, viewer: &Viewer, after: Seq, buffer: usize) -> Option<Subscription> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel(buffer);
        let detached = CancellationToken::new();
        let mut state = self.state();
        let backlog = state.recent_after(after, viewer)?;
        let subscriber = Subscriber {
            after,
            events: sender,
            detached: detached.clone(),
        };
        let group = state.groups.entry(viewer.clone()).or_default();
        group.insert(id, subscriber);
        Some(Subscription {
            backlog,
            events,
            detached,
            subscribers: self.clone(),
            viewer: viewer.clone(),
            id,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves nothing half-changed that could do harm: at worst listeners resume.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.state().unsubscribe(&self.viewer, self.id);
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
            for viewer in Viewer::candidates(&event).filter(|viewer| viewer.may_see(&event)) {
                if let Some(group) = self.groups.get_mut(&viewer) {
                    offer(group, &event);
                }
            }
        }
    }

    fn reset(&mut self, position: Seq) {
        self.position = position;
        self.recent.clear();
        for subscriber in self.groups.values().flat_map(HashMap::values) {
            subscriber.detached.cancel();
        }
        self.groups.clear();
    }

    /// `None` if an event after the number is no longer remembered.
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

    fn unsubscribe(&mut self, viewer: &Viewer, id: u64) {
        if let Some(group) = self.groups.get_mut(viewer) {
            group.remove(&id);
            if group.is_empty() {
                self.groups.remove(viewer);
            }
        }
    }
}

/// Offers an event to all subscribers of a group and drops those whose buffer is full.
fn offer(group: &mut Group, event: &Arc<FeedEvent>) {
    group.retain(|_, subscriber| {
        if event.seq <= subscriber.after {
            return true;
        }
        let is_buffered = subscriber.events.try_send(Arc::clone(event)).is_ok();
        if !is_buffered {
            subscriber.detached.cancel();
            metrics::counter!(names::FEED_OVERFLOWS).increment(1);
        }
        is_buffered
    });
}

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    const BUFFER: usize = 4;

    fn subscribers(position: i64) -> Subscribers {
        Subscribers::new(Seq::from_stored(position))
    }

    /// Publishes events with these numbers; even and odd ones have an owner each.
    fn publish(subscribers: &Subscribers, numbers: impl IntoIterator<Item = i64>) {
        let events = numbers
            .into_iter()
            .map(|seq| {
                let owner = if seq % 2 == 0 { "even" } else { "odd" };
                event(seq, "TokensMinted", Some(owner), r#"{"id":"x"}"#)
            })
            .collect();
        subscribers.publish(events);
    }

    fn user(subject: &str) -> Viewer {
        Viewer::User(subject.to_owned())
    }

    fn subscribe(subscribers: &Subscribers, viewer: &Viewer, after: i64) -> Option<Subscription> {
        subscribers.subscribe(viewer, Seq::from_stored(after), BUFFER)
    }

    /// Everything that has arrived.
    fn numbers(subscription: &mut Subscription) -> Vec<i64> {
        let backlog = subscription.backlog.drain(..);
        let mut numbers: Vec<i64> = backlog.map(|event| event.seq.get()).collect();
        while let Ok(event) = subscription.events.try_recv() {
            numbers.push(event.seq.get());
        }
        numbers
    }

    #[test]
    fn a_subscriber_gets_the_recent_events_and_then_the_new_ones() {
        let hub = subscribers(10);
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

    #[test]
    fn a_number_that_another_process_delivered_is_waited_for() {
        let hub = subscribers(10);
        let mut subscription = subscribe(&hub, &Viewer::Admin, 12).unwrap();
        publish(&hub, 11..=13);
        assert_eq!(numbers(&mut subscription), [13]);
    }

    #[test]
    fn only_the_newest_events_are_remembered() {
        let hub = subscribers(0);
        publish(&hub, 1..=RECENT_EVENTS_MAX as i64 + 5);
        assert!(subscribe(&hub, &Viewer::Admin, 4).is_none());
        let subscription = subscribe(&hub, &Viewer::Admin, 5).unwrap();
        assert_eq!(subscription.backlog.len(), RECENT_EVENTS_MAX);
        assert_eq!(subscription.backlog[0].seq.get(), 6);
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_take_its_events_is_detached_without_a_hole() {
        let hub = subscribers(0);
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

    #[test]
    fn nothing_remains_of_a_subscription_that_ended() {
        let hub = subscribers(0);
        let subscriptions = [user("odd"), user("odd"), Viewer::Admin, Viewer::Anonymous]
            .map(|viewer| subscribe(&hub, &viewer, 0).unwrap());
        assert_eq!(hub.state().groups[&user("odd")].len(), 2);
        drop(subscriptions);
        assert!(hub.state().groups.is_empty());
    }

    #[test]
    fn a_reset_detaches_every_subscriber() {
        let hub = subscribers(0);
        publish(&hub, 1..=3);
        let subscriptions =
            [user("odd"), Viewer::Admin].map(|viewer| subscribe(&hub, &viewer, 3).unwrap());
        hub.reset(Seq::from_stored(1));
        assert!(
            subscriptions
                .iter()
                .all(|subscription| subscription.detached.is_cancelled())
        );
        assert_eq!(hub.position().get(), 1);
        assert!(
            subscribe(&hub, &Viewer::Admin, 0).is_none(),
            "what was remembered is gone"
        );
    }
}
