//! Tells the owner of a meter why one of its readings was refused: the event `MeterReadingValidationFailed`.
//!
//! Invariant: strangers cannot make a meter's owner hear anything, and nobody can flood the feed. Only a submission by the
//! owner counts, and of one meter at most 10 a minute. An event is worth less than the answer: it is dropped rather than
//! waited for.

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
use crate::domain::{Kwh, MeterSerial};
use crate::meters::{self, Caller};
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// Events of one meter within [`WINDOW`].
const EVENTS_PER_WINDOW: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Meters that are remembered; while all of them were heard of within the last minute, others get no events.
const METERS_MAX: usize = 10_000;
/// How long the answer to the caller waits for its event.
const ANSWER_DELAY_MAX: Duration = Duration::from_millis(500);

const LIMITS: CoalesceLimits = CoalesceLimits {
    max_items: 200,
    linger: Duration::from_millis(2),
    queue: 1000,
    concurrency: 1,
};

struct RejectedReading {
    subject: String,
    serial: MeterSerial,
    kwh: Option<Kwh>,
    reason: String,
}

/// Publishes refusals in small transactions of their own.
#[derive(Clone)]
pub(super) struct RejectionEvents {
    events: Coalescer<RejectedReading, ()>,
    allowance: Arc<Mutex<Allowance>>,
}

impl RejectionEvents {
    pub(super) fn start(pool: PgPool, tracker: &TaskTracker) -> RejectionEvents {
        let events = Coalescer::start(
            "refusals",
            LIMITS,
            tracker,
            move |refusals: Vec<RejectedReading>| {
                let pool = pool.clone();
                async move {
                    if let Err(error) = publish(&pool, &refusals).await {
                        tracing::warn!(%error, events = refusals.len(), "refused readings were not announced");
                    }
                    vec![(); refusals.len()]
                }
            },
        );
        RejectionEvents {
            events,
            allowance: Arc::default(),
        }
    }

    /// Announces that a reading was refused, if its meter belongs to the caller.
    pub(super) async fn report(&self, caller: &Caller, submission: &Submission, invalid: &Invalid) {
        let Ok(serial) = serial_of(submission) else {
            return;
        };
        let is_admitted = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(&caller.subject, &serial, Instant::now());
        if !is_admitted {
            return;
        }
        let refusal = RejectedReading {
            subject: caller.subject.clone(),
            serial,
            kwh: kwh_of(submission).ok(),
            reason: ReadingError::from(invalid.clone()).to_string(),
        };
        // Whether it was announced in time, later or not at all changes nothing for the caller.
        let _ = timeout(ANSWER_DELAY_MAX, self.events.call(refusal)).await;
    }

    pub(super) fn close(&self) {
        self.events.close();
    }
}

async fn publish(pool: &PgPool, refusals: &[RejectedReading]) -> sqlx::Result<()> {
    let serials: Vec<&str> = refusals
        .iter()
        .map(|refusal| refusal.serial.as_str())
        .collect();
    let mut transaction = pool.begin().await?;
    let meters = meters::find_by_serials(&mut *transaction, &serials).await?;
    let events: Vec<Event> = refusals
        .iter()
        .filter_map(|refusal| {
            let meter = meters.get(&refusal.serial)?;
            (meter.owner == refusal.subject).then(|| {
                let fields = EventFields {
                    user_id: Some(meter.owner.clone()),
                    wallet_address: Some(meter.wallet.to_string()),
                    meter_id: Some(meter.serial.as_str().to_owned()),
                    kwh_amount: refusal.kwh.map(|kwh| kwh.to_string()),
                    error_reason: Some(refusal.reason.clone()),
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

/// How many events each meter had lately. Counted by subject and serial: a stranger who names somebody else's meter uses up
/// an allowance of the stranger's own.
#[derive(Default)]
struct Allowance {
    recent: HashMap<(String, MeterSerial), VecDeque<Instant>>,
}

impl Allowance {
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
    fn of_one_meter_ten_a_minute_are_admitted() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            assert!(allowance.admit("alice", &serial("m"), at(second)));
        }
        assert!(!allowance.admit("alice", &serial("m"), at(59)));
        assert!(allowance.admit("alice", &serial("other"), at(59)));
        assert!(
            allowance.admit("stranger", &serial("m"), at(59)),
            "counts for itself"
        );
        // The first one is a minute old: one place is free again, and only one.
        assert!(allowance.admit("alice", &serial("m"), at(60)));
        assert!(!allowance.admit("alice", &serial("m"), at(60)));
    }

    #[test]
    fn memory_is_bounded_and_quiet_meters_are_forgotten() {
        let mut allowance = Allowance::default();
        let start = Instant::now();
        for number in 0..METERS_MAX {
            assert!(allowance.admit("alice", &serial(&format!("m-{number}")), start));
        }
        assert!(!allowance.admit("alice", &serial("one-more"), start));
        assert!(
            allowance.admit("alice", &serial("m-0"), start),
            "known meters go on"
        );
        assert!(allowance.admit("alice", &serial("one-more"), start + WINDOW));
        assert_eq!(allowance.recent.len(), 1);
    }
}
