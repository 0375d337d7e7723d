//! Tracks the state of each of the replay's readings from two sources, answers over REST and events, in whatever order they
//! arrive.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::{BaseUnits, ReadingState};

/// How many reasons of refused submissions are kept for the report: they are usually all the same.
const REFUSALS_SHOWN: usize = 3;

/// Counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings whose submission was answered, accepted or refused.
    pub submitted: u64,
    /// Accepted now, or by an earlier run.
    pub accepted: u64,
    /// Of the accepted: reported by an earlier run already.
    pub duplicates: u64,
    /// Confirmed on chain, finalized ones included.
    pub minted: u64,
    pub finalized: u64,
    /// Accepted, and failed permanently.
    pub failed: u64,
}

impl Counts {
    /// Accepted readings that are neither finalized nor failed.
    pub fn open(&self) -> u64 {
        self.accepted - self.finalized - self.failed
    }
}

/// Time from the call of `submit-reading` to the moment that its event `TokensMinted` names, milliseconds: the service's
/// clock is the replay's own. `None` when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LatencyMs {
    pub p50: Option<u64>,
    pub p99: Option<u64>,
}

/// The answer to one submission.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance {
    pub reading_id: Uuid,
    pub state: ReadingState,
    pub base_units: BaseUnits,
    /// Reported by an earlier run.
    pub is_old: bool,
}

/// Shared by the submissions, the event listener and the poll.
#[derive(Default)]
pub struct ReadingTracker(Mutex<Tracked>);

#[derive(Default)]
struct Tracked {
    accepted: HashMap<Uuid, TrackedReading>,
    /// Events that arrived before the answer to their submission.
    early: HashMap<Uuid, EarlyEvents>,
    counts: Counts,
    latencies: Vec<Duration>,
    refusals: Vec<String>,
}

struct TrackedReading {
    state: ReadingState,
    base_units: BaseUnits,
    /// When `submit-reading` was called; `None` once measured, or when an earlier run had called it.
    called_at: Option<DateTime<Utc>>,
}

struct EarlyEvents {
    minted_at: Option<DateTime<Utc>>,
    state: ReadingState,
}

impl ReadingTracker {
    /// A submission was answered; it was first called at `called_at`.
    pub fn accept(&self, acceptance: Acceptance, called_at: DateTime<Utc>) {
        let mut tracked = self.tracked();
        tracked.counts.submitted += 1;
        let mut reading = TrackedReading {
            state: ReadingState::Pending,
            base_units: acceptance.base_units,
            called_at: (!acceptance.is_old).then_some(called_at),
        };
        tracked.counts.accepted += 1;
        tracked.counts.duplicates += u64::from(acceptance.is_old);
        tracked.set_state(&mut reading, acceptance.state);
        if let Some(early) = tracked.early.remove(&acceptance.reading_id) {
            if let Some(minted_at) = early.minted_at {
                tracked.measure(&mut reading, minted_at);
            }
            tracked.set_state(&mut reading, early.state);
        }
        tracked.accepted.insert(acceptance.reading_id, reading);
    }

    /// A submission was refused permanently.
    pub fn refuse(&self, reason: String) {
        let mut tracked = self.tracked();
        tracked.counts.submitted += 1;
        if tracked.refusals.len() < REFUSALS_SHOWN && !tracked.refusals.contains(&reason) {
            tracked.refusals.push(reason);
        }
    }

    /// The event `TokensMinted` arrived. After a fork it arrives again: the first one counts.
    pub fn minted(&self, reading_id: Uuid, at: DateTime<Utc>) {
        let mut tracked = self.tracked();
        match tracked.accepted.remove(&reading_id) {
            Some(mut reading) => {
                tracked.measure(&mut reading, at);
                tracked.set_state(&mut reading, ReadingState::Minted);
                tracked.accepted.insert(reading_id, reading);
            }
            None => {
                tracked.early.entry(reading_id).or_insert(EarlyEvents {
                    minted_at: Some(at),
                    state: ReadingState::Minted,
                });
            }
        }
    }

    /// The event `MintFinalized` arrived.
    pub fn finalized(&self, reading_id: Uuid) {
        let mut tracked = self.tracked();
        match tracked.accepted.remove(&reading_id) {
            Some(mut reading) => {
                tracked.set_state(&mut reading, ReadingState::Finalized);
                tracked.accepted.insert(reading_id, reading);
            }
            None => {
                let early = tracked.early.entry(reading_id).or_insert(EarlyEvents {
                    minted_at: None,
                    state: ReadingState::Finalized,
                });
                early.state = ReadingState::Finalized;
            }
        }
    }

    /// A poll returned this state. Readings that are not the replay's are ignored.
    pub fn polled(&self, reading_id: Uuid, state: ReadingState) {
        let mut tracked = self.tracked();
        if let Some(mut reading) = tracked.accepted.remove(&reading_id) {
            tracked.set_state(&mut reading, state);
            tracked.accepted.insert(reading_id, reading);
        }
    }

    pub fn counts(&self) -> Counts {
        self.tracked().counts
    }

    /// A few of the reasons for which submissions were refused.
    pub fn refusals(&self) -> Vec<String> {
        self.tracked().refusals.clone()
    }

    /// Sum of the minted and finalized readings, base units.
    pub fn base_units_minted(&self) -> Decimal {
        let tracked = self.tracked();
        let minted = tracked
            .accepted
            .values()
            .filter(|reading| is_minted(reading.state));
        minted.map(|reading| reading.base_units.to_decimal()).sum()
    }

    pub fn latency_ms(&self) -> LatencyMs {
        let mut latencies = self.tracked().latencies.clone();
        latencies.sort_unstable();
        LatencyMs {
            p50: percentile_ms(&latencies, 50),
            p99: percentile_ms(&latencies, 99),
        }
    }

    fn tracked(&self) -> MutexGuard<'_, Tracked> {
        // No code that holds the lock can panic in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracked {
    /// A final state stays: an answer that was under way when the event arrived is older than the event.
    fn set_state(&mut self, reading: &mut TrackedReading, state: ReadingState) {
        if reading.state == ReadingState::Finalized || reading.state == state {
            return;
        }
        let minted_after = is_minted(state);
        match (is_minted(reading.state), minted_after) {
            (false, true) => self.counts.minted += 1,
            (true, false) => self.counts.minted -= 1,
            _ => {}
        }
        if reading.state == ReadingState::Failed {
            self.counts.failed -= 1;
        }
        match state {
            ReadingState::Finalized => self.counts.finalized += 1,
            ReadingState::Failed => self.counts.failed += 1,
            _ => {}
        }
        reading.state = state;
    }

    fn measure(&mut self, reading: &mut TrackedReading, minted_at: DateTime<Utc>) {
        if let Some(called_at) = reading.called_at.take() {
            self.latencies
                .push((minted_at - called_at).to_std().unwrap_or_default());
        }
    }
}

fn is_minted(state: ReadingState) -> bool {
    matches!(state, ReadingState::Minted | ReadingState::Finalized)
}

/// Nearest rank: the smallest value that at least `percent` of all do not exceed.
fn percentile_ms(sorted: &[Duration], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let value = sorted.get(rank - 1)?;
    Some(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acceptance(reading_id: Uuid, state: ReadingState, is_old: bool) -> Acceptance {
        Acceptance {
            reading_id,
            state,
            base_units: BaseUnits::new(250),
            is_old,
        }
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_reading_is_counted_and_measured_once_whatever_arrives_twice() {
        let (tracker, id, called_at) = (ReadingTracker::default(), Uuid::new_v4(), Utc::now());

        tracker.accept(acceptance(id, ReadingState::Pending, false), called_at);
        tracker.minted(id, called_at + ms(400));
        tracker.minted(id, called_at + ms(900));
        tracker.finalized(id);
        tracker.finalized(id);
        tracker.minted(id, called_at + ms(950));
        tracker.polled(id, ReadingState::Minted);

        let counts = tracker.counts();
        assert_eq!(
            (
                counts.submitted,
                counts.accepted,
                counts.minted,
                counts.finalized
            ),
            (1, 1, 1, 1)
        );
        assert_eq!(counts.open(), 0);
        assert_eq!(tracker.base_units_minted(), Decimal::from(250));
        assert_eq!(
            tracker.latency_ms(),
            LatencyMs {
                p50: Some(400),
                p99: Some(400)
            }
        );
    }

    #[test]
    fn events_may_arrive_before_the_answer() {
        let (tracker, id, called_at) = (ReadingTracker::default(), Uuid::new_v4(), Utc::now());

        tracker.minted(id, called_at + ms(300));
        tracker.finalized(id);
        assert_eq!(tracker.counts(), Counts::default());
        tracker.accept(acceptance(id, ReadingState::Pending, false), called_at);

        let counts = tracker.counts();
        assert_eq!((counts.minted, counts.finalized, counts.open()), (1, 1, 0));
        assert_eq!(tracker.latency_ms().p99, Some(300));
    }

    #[test]
    fn what_an_earlier_run_reported_is_accepted_but_not_measured() {
        let (tracker, id, called_at) = (ReadingTracker::default(), Uuid::new_v4(), Utc::now());

        tracker.accept(acceptance(id, ReadingState::Submitted, true), called_at);
        assert_eq!(tracker.counts().open(), 1);
        tracker.minted(id, called_at + ms(300));
        tracker.finalized(id);

        let counts = tracker.counts();
        assert_eq!((counts.duplicates, counts.finalized), (1, 1));
        assert_eq!(tracker.latency_ms(), LatencyMs::default());
    }

    #[test]
    fn a_failed_reading_is_settled_until_it_is_retried() {
        let (tracker, id, called_at) = (ReadingTracker::default(), Uuid::new_v4(), Utc::now());
        tracker.accept(acceptance(id, ReadingState::Pending, false), called_at);

        tracker.polled(id, ReadingState::Failed);
        assert_eq!((tracker.counts().failed, tracker.counts().open()), (1, 0));
        tracker.polled(id, ReadingState::Pending);
        assert_eq!((tracker.counts().failed, tracker.counts().open()), (0, 1));
        tracker.polled(Uuid::new_v4(), ReadingState::Finalized);
        assert_eq!(tracker.counts().finalized, 0);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latencies: Vec<Duration> = (1..=200).map(ms).collect();
        assert_eq!(percentile_ms(&latencies, 50), Some(100));
        assert_eq!(percentile_ms(&latencies, 99), Some(198));
        assert_eq!(percentile_ms(&latencies[..1], 99), Some(1));
        assert_eq!(percentile_ms(&[], 50), None);
    }
}
