//! Decides for each reading of a batch: accepted, a duplicate, or in conflict. Pure: the same stored readings and the same clock
//! give the same decisions.
//!
//! The readings of one meter never overlap. So of all that begin before an interval's end, the one that begins last also
//! ends last: that one alone shows whether the interval is free, is the same again, or overlaps.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::accepted::{Accepted, Stored};
use super::error::{Invalid, ReadingError};
use super::parsed::ParsedReading;
use super::rules::ReadingRules;
use crate::domain::{BaseUnits, Interval, ReadingState};
use crate::meters::Meter;

/// A parsed reading with its meter, which its caller may report for.
pub(super) struct ForMeter<'a> {
    pub(super) parsed: &'a ParsedReading,
    pub(super) meter: &'a Meter,
    pub(super) interval: Interval,
}

/// A reading to be stored.
pub(super) struct NewReading<'a> {
    pub(super) id: Uuid,
    pub(super) parsed: &'a ParsedReading,
    pub(super) meter: &'a Meter,
    pub(super) interval: Interval,
    pub(super) base_units: BaseUnits,
    /// Random, so that the Merkle leaf cannot be guessed.
    pub(super) salt: [u8; 16],
}

/// Decides one reading after the other: of equal readings in one batch the first is stored.
pub(super) struct Admission<'a> {
    rules: &'a ReadingRules,
    now: DateTime<Utc>,
    /// The readings that this batch accepted, by meter and start.
    accepted: HashMap<i64, BTreeMap<DateTime<Utc>, Stored>>,
    new: Vec<NewReading<'a>>,
}

impl<'a> Admission<'a> {
    pub(super) fn new(rules: &'a ReadingRules, now: DateTime<Utc>) -> Admission<'a> {
        Admission {
            rules,
            now,
            accepted: HashMap::new(),
            new: Vec::new(),
        }
    }

    /// `last_before_end`: the stored reading of this meter that begins last before the interval's end. The answer is valid
    /// once the batch has committed.
    pub(super) fn decide(
        &mut self,
        for_meter: ForMeter<'a>,
        last_before_end: Option<&Stored>,
    ) -> Result<Accepted, ReadingError> {
        let interval = for_meter.interval;
        let in_batch = self
            .accepted
            .get(&for_meter.meter.id)
            .and_then(|of_meter| of_meter.range(..interval.end()).next_back())
            .map(|(_, stored)| stored);
        let overlapping = [last_before_end, in_batch]
            .into_iter()
            .flatten()
            .find(|stored| stored.interval.overlaps(&interval));
        match overlapping {
            // Before its age is checked: a repeated reading is a duplicate however old it is.
            Some(stored) => compare(&for_meter, stored),
            None => Ok(self.accept(for_meter)?),
        }
    }

    /// The accepted readings in the one order that all writers use, so that two batches never deadlock.
    pub(super) fn into_new_readings(mut self) -> Vec<NewReading<'a>> {
        self.new
            .sort_unstable_by_key(|reading| (reading.meter.id, reading.interval.start()));
        self.new
    }

    fn accept(&mut self, for_meter: ForMeter<'a>) -> Result<Accepted, Invalid> {
        let ForMeter {
            parsed,
            meter,
            interval,
        } = for_meter;
        let base_units = self.rules.worth(parsed.kwh, interval, self.now)?;
        let stored = Stored {
            id: Uuid::now_v7(),
            interval,
            kwh: parsed.kwh,
            state: ReadingState::Pending,
            base_units,
        };
        let accepted = stored.as_new();
        self.new.push(NewReading {
            id: stored.id,
            parsed,
            meter,
            interval,
            base_units,
            salt: rand::random(),
        });
        self.accepted
            .entry(meter.id)
            .or_default()
            .insert(interval.start(), stored);
        Ok(accepted)
    }
}

fn compare(for_meter: &ForMeter<'_>, stored: &Stored) -> Result<Accepted, ReadingError> {
    let serial = for_meter.meter.serial.clone();
    let interval = for_meter.interval;
    if stored.interval != interval {
        return Err(ReadingError::Overlap {
            serial,
            interval,
            reading_id: stored.id,
            stored: stored.interval,
        });
    }
    if stored.kwh != for_meter.parsed.kwh {
        return Err(ReadingError::OtherValue {
            serial,
            interval,
            reading_id: stored.id,
            stored: stored.kwh,
            sent: for_meter.parsed.kwh,
        });
    }
    Ok(stored.as_duplicate())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use rust_decimal::Decimal;

    use super::*;
    use crate::domain::{Kwh, MeterSerial, TokenRate, Wallet};

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_772_366_400, 0).unwrap();

    fn rules() -> ReadingRules {
        ReadingRules {
            rate: TokenRate::new(Decimal::ONE, 9).unwrap(),
            kwh_max: Decimal::from(100),
            age_max: std::time::Duration::from_secs(7 * 24 * 60 * 60),
            base_units_max: BaseUnits::MAX,
        }
    }

    fn meter(id: i64) -> Meter {
        Meter {
            id,
            serial: MeterSerial::parse(&format!("m-{id}")).unwrap(),
            owner: "alice".to_owned(),
            wallet: Wallet::from_stored([1; 32]),
            interval_minutes: 15,
            rollout_bucket: 0,
            registered_at: NOON,
        }
    }

    fn parsed(meter: &Meter, kwh: &str) -> ParsedReading {
        ParsedReading {
            serial: meter.serial.clone(),
            kwh: Kwh::parse(kwh).unwrap(),
            start: None,
            end: NOON,
            meter_signature: None,
        }
    }

    /// Minutes before noon.
    fn interval(from: i64, to: i64) -> Interval {
        Interval::new(
            NOON - TimeDelta::minutes(from),
            NOON - TimeDelta::minutes(to),
        )
        .unwrap()
    }

    fn stored(interval: Interval, kwh: &str) -> Stored {
        Stored {
            id: Uuid::now_v7(),
            interval,
            kwh: Kwh::parse(kwh).unwrap(),
            state: ReadingState::Finalized,
            base_units: BaseUnits::new(7),
        }
    }

    #[test]
    fn the_same_reading_again_is_a_duplicate_whatever_its_age_and_the_current_rules() {
        let (meter, rules) = (meter(1), rules());
        let long_ago = interval(60 * 24 * 400, 60 * 24 * 400 - 15);
        let before = stored(long_ago, "250");
        let parsed = parsed(&meter, "250.000");
        let for_meter = ForMeter {
            parsed: &parsed,
            meter: &meter,
            interval: long_ago,
        };
        let mut admission = Admission::new(&rules, NOON);
        let answer = admission.decide(for_meter, Some(&before)).unwrap();
        assert_eq!(
            answer,
            Accepted {
                reading_id: before.id,
                duplicate: true,
                state: ReadingState::Finalized,
                base_units: BaseUnits::new(7),
            }
        );
        assert!(admission.into_new_readings().is_empty());
    }

    #[test]
    fn another_value_and_an_overlap_name_the_stored_reading() {
        let (meter, rules) = (meter(1), rules());
        let before = stored(interval(30, 15), "1.5");
        let parsed = parsed(&meter, "1.6");
        let mut admission = Admission::new(&rules, NOON);
        let mut decide = |interval| {
            let for_meter = ForMeter {
                parsed: &parsed,
                meter: &meter,
                interval,
            };
            admission.decide(for_meter, Some(&before))
        };
        let other_value = decide(interval(30, 15)).unwrap_err();
        assert_eq!(other_value.stored_reading(), Some(before.id));
        assert_eq!(
            other_value.to_string(),
            format!(
                "meter m-1 has reported 1.5 kWh for the interval 2026-03-01T11:30:00Z/2026-03-01T11:45:00Z already \
                 (reading {}); 1.6 kWh is another value, and a stored reading does not change",
                before.id
            )
        );
        let overlap = decide(interval(31, 16)).unwrap_err();
        assert_eq!(overlap.stored_reading(), Some(before.id));
        assert_eq!(
            overlap.to_string(),
            format!(
                "the interval 2026-03-01T11:29:00Z/2026-03-01T11:44:00Z of meter m-1 overlaps \
                 2026-03-01T11:30:00Z/2026-03-01T11:45:00Z of reading {}; report only time that no reading covers",
                before.id
            )
        );
        // Intervals that touch do not overlap.
        assert!(decide(interval(15, 0)).is_ok());
        assert!(decide(interval(45, 30)).is_ok());
    }

    #[test]
    fn within_a_batch_the_first_wins() {
        let (meter, rules) = (meter(1), rules());
        let (first, other) = (parsed(&meter, "1.5"), parsed(&meter, "2.5"));
        let mut admission = Admission::new(&rules, NOON);
        let for_meter = |parsed, interval| ForMeter {
            parsed,
            meter: &meter,
            interval,
        };
        let winner = admission
            .decide(for_meter(&first, interval(15, 0)), None)
            .unwrap();
        assert!(!winner.duplicate);
        let again = admission
            .decide(for_meter(&first, interval(15, 0)), None)
            .unwrap();
        assert_eq!(
            again,
            Accepted {
                duplicate: true,
                ..winner.clone()
            }
        );
        let other_value = admission.decide(for_meter(&other, interval(15, 0)), None);
        assert_eq!(
            other_value.unwrap_err().stored_reading(),
            Some(winner.reading_id)
        );
        let overlap = admission.decide(for_meter(&first, interval(30, 14)), None);
        assert_eq!(
            overlap.unwrap_err().stored_reading(),
            Some(winner.reading_id)
        );
        assert_eq!(admission.into_new_readings().len(), 1);
    }

    proptest! {
        /// In whatever order readings are sent: accepted ones never overlap, a refused one overlaps an accepted one, and all
        /// are stored in one order.
        #[test]
        fn accepted_readings_never_overlap(
            sent in prop::collection::vec((1_i64..3, 0_i64..300, 1_i64..60, 1_u32..3), 1..80)
        ) {
            let (meters, rules) = ([meter(0), meter(1), meter(2)], rules());
            let parsed_readings: Vec<ParsedReading> = sent
                .iter()
                .map(|(of, _, _, kwh)| parsed(&meters[*of as usize], &kwh.to_string()))
                .collect();
            let mut admission = Admission::new(&rules, NOON);
            let mut accepted: Vec<(i64, Interval)> = Vec::new();
            for ((of, to, length, _), parsed) in sent.iter().zip(&parsed_readings) {
                let interval = interval(to + length, *to);
                let is_free = !accepted
                    .iter()
                    .any(|(meter, other)| meter == of && other.overlaps(&interval));
                let for_meter = ForMeter { parsed, meter: &meters[*of as usize], interval };
                let answer = admission.decide(for_meter, None);
                let is_new = answer.is_ok_and(|accepted| !accepted.duplicate);
                prop_assert_eq!(is_new, is_free);
                if is_new {
                    accepted.push((*of, interval));
                }
            }
            let new: Vec<(i64, Interval)> = admission
                .into_new_readings()
                .iter()
                .map(|reading| (reading.meter.id, reading.interval))
                .collect();
            accepted.sort_unstable();
            prop_assert_eq!(new, accepted);
        }
    }
}
