//! Notifies the owner of a meter when one of its readings was refused: the event `MeterReadingValidationFailed`.
//!
//! Invariant: another user cannot cause events for a meter's owner, and no user can flood the feed. Only submissions by the owner
//! are published, and at most 10 a minute for each meter. The answer to the caller is worth more than the event: an event that
//! takes too long is dropped.
//!
//! The limit is a sliding window, not a token bucket as in `api`: the feed promises at most 10 events in any minute, and a
//! bucket of 10 allows 19 in its first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::error::{Invalid, ReadingError};
use super::parsed::{kwh_of, serial_of};
use super::submission::Submission;
use crate::coalesce::{CoalesceLimits, Coalescer};
use crate::db;
use crate::domain::{Kwh, MeterSerial};
use crate::meters::{self, Caller};
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// Events of one meter within [`WINDOW`].
const EVENTS_PER_WINDOW: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Meters with events in the window; while this many are remembered, further ones get no events.
const METERS_MAX: usize = 10_000;
/// How long the answer to the caller waits for its event.
const ANSWER_DELAY_MAX: Duration = Duration::from_millis(500);

const LIMITS: CoalesceLimits = CoalesceLimits {
    max_items: 200,
    linger: Duration::from_millis(2),
    queue: 1000,
    concurrency: 1,
};

/// A refused submission that names a meter.
struct RejectedReading {
    subject: String,
    serial: MeterSerial,
    kwh: Option<Kwh>,
    reason: String,
}

/// Publishes rejections in separate, small transactions.
#[derive(Clone)]
pub(super) struct RejectionEvents {
    events: Coalescer<RejectedReading, ()>,
    rate_limit: Arc<Mutex<EventRateLimit>>,
}

impl RejectionEvents {
    pub(super) fn start(pool: PgPool, tracker: &TaskTracker) -> RejectionEvents {
        let events = Coalescer::start(
            "refusals",
            LIMITS,
            tracker,
            move |rejected: Vec<RejectedReading>| {
                let pool = pool.clone();
                async move {
                    if let Err(error) = publish(&pool, &rejected).await {
                        tracing::warn!(%error, events = rejected.len(), "events of refused readings were not published");
                    }
                    vec![(); rejected.len()]
                }
            },
        );
        RejectionEvents {
            events,
            rate_limit: Arc::default(),
        }
    }

    /// Publishes that a reading was refused, if its meter belongs to the caller.
    pub(super) async fn publish(
        &self,
        caller: &Caller,
        submission: &Submission,
        invalid: &Invalid,
    ) {
        let Ok(serial) = serial_of(submission) else {
            return;
        };
        let is_admitted = self
            .rate_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(&caller.subject, &serial, Instant::now());
        if !is_admitted {
            return;
        }
        let rejected = RejectedReading {
            subject: caller.subject.clone(),
            serial,
            kwh: kwh_of(submission).ok(),
            reason: ReadingError::from(invalid.clone()).to_string(),
        };
        // The caller's answer does not depend on whether the event was published in time, later or not at all.
        let _ = timeout(ANSWER_DELAY_MAX, self.events.call(rejected)).await;
    }

    pub(super) fn close(&self) {
        self.events.close();
    }
}

async fn publish(pool: &PgPool, rejected: &[RejectedReading]) -> sqlx::Result<()> {
    let serials: Vec<&str> = rejected
        .iter()
        .map(|reading| reading.serial.as_str())
        .collect();
    let mut transaction = db::begin(pool).await?;
    let meters = meters::find_by_serials(&mut *transaction, &serials).await?;
    let events: Vec<Event> = rejected
        .iter()
        .filter_map(|reading| {
            let meter = meters.get(&reading.serial)?;
            (meter.owner == reading.subject).then(|| {
                let fields = EventFields {
                    user_id: Some(meter.owner.clone()),
                    wallet_address: Some(meter.wallet.to_string()),
                    meter_id: Some(meter.serial.as_str().to_owned()),
                    kwh_amount: reading.kwh.map(|kwh| kwh.to_string()),
                    error_reason: Some(reading.reason.clone()),
                    ..EventFields::default()
                };
                Event::new(EventType::MeterReadingValidationFailed, &fields)
            })
        })
        .collect();
    if events.is_empty() {
        return Ok(());
    }
    outbox::publish(&mut transaction, &events).await?;
    outbox::notify(&mut transaction, Topic::Outbox).await?;
    transaction.commit().await
}

/// When each meter had its latest events. Counted by subject and serial: a user who names another user's meter uses up a limit of
/// their own.
#[derive(Default)]
struct EventRateLimit {
    recent: HashMap<(String, MeterSerial), VecDeque<Instant>>,
}

impl EventRateLimit {
    fn admit(&mut self, subject: &str, serial: &MeterSerial, now: Instant) -> bool {
        let key = (subject.to_owned(), serial.clone());
        if !self.recent.contains_key(&key) && self.recent.len() >= METERS_MAX {
            self.recent
                .retain(|_, moments| moments.back().is_some_and(|last| now - *last < WINDOW));
            if self.recent.len() >= METERS_MAX {
                return false;
            }
        }
        let moments = self.recent.entry(key).or_default();
        while moments.front().is_some_and(|first| now - *first >= WINDOW) {
            moments.pop_front();
        }
        if moments.len() >= EVENTS_PER_WINDOW {
            return false;
        }
        moments.push_back(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(text: &str) -> MeterSerial {
        MeterSerial::parse(text).unwrap()
    }

    #[test]
    fn ten_events_a_minute_are_admitted_for_each_meter() {
        let mut limit = EventRateLimit::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            assert!(limit.admit("alice", &serial("m"), at(second)));
        }
        assert!(!limit.admit("alice", &serial("m"), at(59)));
        assert!(limit.admit("alice", &serial("other"), at(59)));
        assert!(
            limit.admit("stranger", &serial("m"), at(59)),
            "counts separately"
        );
        // The first one is a minute old: one place is free again, and only one.
        assert!(limit.admit("alice", &serial("m"), at(60)));
        assert!(!limit.admit("alice", &serial("m"), at(60)));
    }

    #[test]
    fn memory_is_bounded_and_meters_without_events_are_forgotten() {
        let mut limit = EventRateLimit::default();
        let start = Instant::now();
        for number in 0..METERS_MAX {
            assert!(limit.admit("alice", &serial(&format!("m-{number}")), start));
        }
        assert!(!limit.admit("alice", &serial("one-more"), start));
        assert!(
            limit.admit("alice", &serial("m-0"), start),
            "known meters still get events"
        );
        assert!(limit.admit("alice", &serial("one-more"), start + WINDOW));
        assert_eq!(limit.recent.len(), 1);
    }
}
