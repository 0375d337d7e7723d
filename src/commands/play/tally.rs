//! What became of the play's readings, as its two sources tell: answers over REST, and events, in whatever order they come.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::{BaseUnits, ReadingState};

/// How many reasons of refused submissions are kept to be shown: they are usually all the same.
const REFUSALS_SHOWN: usize = 3;

/// Figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings whose submission was answered, accepted or not.
    pub submitted: u64,
    /// Accepted now, or by an earlier run.
    pub accepted: u64,
    /// Of the accepted: reported by an earlier run already.
    pub duplicates: u64,
    /// Confirmed on chain, finalized ones included.
    pub minted: u64,
    pub finalized: u64,
    /// Accepted, and given up by the service.
    pub failed: u64,
}

impl Counts {
    /// Accepted readings whose end is not known yet.
    pub fn open(&self) -> u64 {
        self.accepted - self.finalized - self.failed
    }
}

/// Time from the call of `submit-reading` to the moment that its event `TokensMinted` names, milliseconds: the service's
/// clock is the play's own.
/// `None` when nothing was measured.
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

/// Shared by the reporting, the listening and the re-checking side.
#[derive(Default)]
pub struct Tally(Mutex<Books>);

#[derive(Default)]
struct Books {
    accepted: HashMap<Uuid, Track>,
    /// Events that overtook the answer to their submission.
    early: HashMap<Uuid, Early>,
    counts: Counts,
    latencies: Vec<Duration>,
    refusals: Vec<String>,
}

struct Track {
    state: ReadingState,
    base_units: BaseUnits,
    /// When `submit-reading` was called; `None` once measured, or when an earlier run had called it.
    called_at: Option<DateTime<Utc>>,
}

struct Early {
    minted_at: Option<DateTime<Utc>>,
    state: ReadingState,
}

impl Tally {
    /// A submission was answered; it was first called at `called_at`.
    pub fn accept(&self, acceptance: Acceptance, called_at: DateTime<Utc>) {
        let mut books = self.books();
        books.counts.submitted += 1;
        let mut track = Track {
            state: ReadingState::Pending,
            base_units: acceptance.base_units,
            called_at: (!acceptance.is_old).then_some(called_at),
        };
        books.counts.accepted += 1;
        books.counts.duplicates += u64::from(acceptance.is_old);
        books.turn(&mut track, acceptance.state);
        if let Some(early) = books.early.remove(&acceptance.reading_id) {
            if let Some(minted_at) = early.minted_at {
                books.measure(&mut track, minted_at);
            }
            books.turn(&mut track, early.state);
        }
        books.accepted.insert(acceptance.reading_id, track);
    }

    /// A submission was refused for good.
    pub fn refuse(&self, reason: String) {
        let mut books = self.books();
        books.counts.submitted += 1;
        if books.refusals.len() < REFUSALS_SHOWN && !books.refusals.contains(&reason) {
            books.refusals.push(reason);
        }
    }

    /// The event `TokensMinted` says so, and when. After a fork it arrives again: the first one counts.
    pub fn minted(&self, reading_id: Uuid, at: DateTime<Utc>) {
        let mut books = self.books();
        match books.accepted.remove(&reading_id) {
            Some(mut track) => {
                books.measure(&mut track, at);
                books.turn(&mut track, ReadingState::Minted);
                books.accepted.insert(reading_id, track);
            }
            None => {
                books.early.entry(reading_id).or_insert(Early {
                    minted_at: Some(at),
                    state: ReadingState::Minted,
                });
            }
        }
    }

    /// The event `MintFinalized` arrived.
    pub fn finalized(&self, reading_id: Uuid) {
        let mut books = self.books();
        match books.accepted.remove(&reading_id) {
            Some(mut track) => {
                books.turn(&mut track, ReadingState::Finalized);
                books.accepted.insert(reading_id, track);
            }
            None => {
                let early = books.early.entry(reading_id).or_insert(Early {
                    minted_at: None,
                    state: ReadingState::Finalized,
                });
                early.state = ReadingState::Finalized;
            }
        }
    }

    /// The service was asked and answered with this state. Readings that are not the play's are passed over.
    pub fn found(&self, reading_id: Uuid, state: ReadingState) {
        let mut books = self.books();
        if let Some(mut track) = books.accepted.remove(&reading_id) {
            books.turn(&mut track, state);
            books.accepted.insert(reading_id, track);
        }
    }

    pub fn counts(&self) -> Counts {
        self.books().counts
    }

    /// Why submissions were refused, a few of the reasons.
    pub fn refusals(&self) -> Vec<String> {
        self.books().refusals.clone()
    }

    /// Sum of the minted and finalized readings, base units.
    pub fn base_units_minted(&self) -> Decimal {
        let books = self.books();
        let minted = books
            .accepted
            .values()
            .filter(|track| is_minted(track.state));
        minted.map(|track| track.base_units.to_decimal()).sum()
    }

    pub fn latency_ms(&self) -> LatencyMs {
        let mut latencies = self.books().latencies.clone();
        latencies.sort_unstable();
        LatencyMs {
            p50: percentile_ms(&latencies, 50),
            p99: percentile_ms(&latencies, 99),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No code under the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// What is final stays final: an answer that was under way when the event came tells less than the event.
    fn turn(&mut self, track: &mut Track, state: ReadingState) {
        if track.state == ReadingState::Finalized || track.state == state {
            return;
        }
        let minted_after = is_minted(state);
        match (is_minted(track.state), minted_after) {
            (false, true) => self.counts.minted += 1,
            (true, false) => self.counts.minted -= 1,
            _ => {}
        }
        if track.state == ReadingState::Failed {
            self.counts.failed -= 1;
        }
        match state {
            ReadingState::Finalized => self.counts.finalized += 1,
            ReadingState::Failed => self.counts.failed += 1,
            _ => {}
        }
        track.state = state;
    }

    fn measure(&mut self, track: &mut Track, minted_at: DateTime<Utc>) {
        if let Some(called_at) = track.called_at.take() {
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
    fn a_reading_is_counted_and_measured_once_whatever_comes_twice() {
        let (tally, id, called_at) = (Tally::default(), Uuid::new_v4(), Utc::now());

        tally.accept(acceptance(id, ReadingState::Pending, false), called_at);
        tally.minted(id, called_at + ms(400));
        tally.minted(id, called_at + ms(900));
        tally.finalized(id);
        tally.finalized(id);
        tally.minted(id, called_at + ms(950));
        tally.found(id, ReadingState::Minted);

        let counts = tally.counts();
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
        assert_eq!(tally.base_units_minted(), Decimal::from(250));
        assert_eq!(
            tally.latency_ms(),
            LatencyMs {
                p50: Some(400),
                p99: Some(400)
            }
        );
    }

    #[test]
    fn events_may_overtake_the_answer() {
        let (tally, id, called_at) = (Tally::default(), Uuid::new_v4(), Utc::now());

        tally.minted(id, called_at + ms(300));
        tally.finalized(id);
        assert_eq!(tally.counts(), Counts::default());
        tally.accept(acceptance(id, ReadingState::Pending, false), called_at);

        let counts = tally.counts();
        assert_eq!((counts.minted, counts.finalized, counts.open()), (1, 1, 0));
        assert_eq!(tally.latency_ms().p99, Some(300));
    }

    #[test]
    fn what_an_earlier_run_reported_is_accepted_but_not_measured() {
        let (tally, id, called_at) = (Tally::default(), Uuid::new_v4(), Utc::now());

        tally.accept(acceptance(id, ReadingState::Submitted, true), called_at);
        assert_eq!(tally.counts().open(), 1);
        tally.minted(id, called_at + ms(300));
        tally.finalized(id);

        let counts = tally.counts();
        assert_eq!((counts.duplicates, counts.finalized), (1, 1));
        assert_eq!(tally.latency_ms(), LatencyMs::default());
    }

    #[test]
    fn a_failed_reading_is_settled_until_it_is_retried() {
        let (tally, id, called_at) = (Tally::default(), Uuid::new_v4(), Utc::now());
        tally.accept(acceptance(id, ReadingState::Pending, false), called_at);

        tally.found(id, ReadingState::Failed);
        assert_eq!((tally.counts().failed, tally.counts().open()), (1, 0));
        tally.found(id, ReadingState::Pending);
        assert_eq!((tally.counts().failed, tally.counts().open()), (0, 1));
        tally.found(Uuid::new_v4(), ReadingState::Finalized);
        assert_eq!(tally.counts().finalized, 0);
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
