//! Plans the replay: which meter reports what, and when.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::api_client::Submission;
use super::data_file::{Day, PlannedReading, readings_of};
use super::replay_error::ReplayError;
use super::schedule::{Calendar, Speed, due_after};
use super::wallets::wallet_of;

/// A planned replay.
pub struct Replay {
    pub(super) day: Day,
    pub(super) speed: Speed,
    pub(super) meters: Vec<PlannedMeter>,
    /// In the order in which they are due.
    pub(super) reports: Vec<PlannedReport>,
}

/// A meter that the replay registers.
pub(super) struct PlannedMeter {
    pub serial: String,
    pub wallet: String,
}

/// A reading that the replay submits, and when.
pub(super) struct PlannedReport {
    pub submission: Submission,
    /// After the replay's start.
    pub due_after: Duration,
}

impl Replay {
    pub fn plan(
        day: Day,
        speed: Speed,
        calendar: Calendar,
        seed: &[u8; 32],
    ) -> Result<Replay, ReplayError> {
        let planned = readings_of(day)?;
        let mut meters: Vec<PlannedMeter> = Vec::new();
        for reading in &planned {
            if meters
                .last()
                .is_none_or(|meter| meter.serial != reading.meter)
            {
                meters.push(PlannedMeter {
                    serial: reading.meter.clone(),
                    wallet: wallet_of(seed, &reading.meter),
                });
            }
        }
        let reports = schedule(planned, &meters, speed, calendar);
        Ok(Replay {
            day,
            speed,
            meters,
            reports,
        })
    }

    pub fn day(&self) -> Day {
        self.day
    }

    pub fn readings(&self) -> u64 {
        u64::try_from(self.reports.len()).unwrap_or(u64::MAX)
    }

    /// Start of the oldest interval; `None` for a day without sun.
    pub fn oldest_start(&self) -> Option<DateTime<Utc>> {
        self.reports
            .iter()
            .map(|report| report.submission.start)
            .min()
    }
}

fn schedule(
    planned: Vec<PlannedReading>,
    meters: &[PlannedMeter],
    speed: Speed,
    calendar: Calendar,
) -> Vec<PlannedReport> {
    let index_of: HashMap<&str, usize> = meters
        .iter()
        .enumerate()
        .map(|(index, meter)| (meter.serial.as_str(), index))
        .collect();
    let first_end = planned
        .iter()
        .map(|reading| calendar.interval_of(reading.local_start).1)
        .min()
        .unwrap_or_default();
    let mut reports: Vec<(TimeDelta, usize, PlannedReport)> = planned
        .into_iter()
        .map(|reading| {
            let (start, end) = calendar.interval_of(reading.local_start);
            let since_first_end = end - first_end;
            let meter_index = index_of
                .get(reading.meter.as_str())
                .copied()
                .unwrap_or_default();
            let report = PlannedReport {
                due_after: due_after(speed, since_first_end, meter_index, meters.len()),
                submission: Submission {
                    meter: reading.meter,
                    kwh: reading.kwh,
                    start,
                    end,
                },
            };
            (since_first_end, meter_index, report)
        })
        .collect();
    reports.sort_by_key(|(since_first_end, meter_index, _)| (*since_first_end, *meter_index));
    reports.into_iter().map(|(_, _, report)| report).collect()
}

#[cfg(test)]
pub(super) fn test_plan(day: Day, speed: Speed) -> Replay {
    let calendar = Calendar::before("2026-11-25T04:12:55Z".parse().unwrap());
    Replay::plan(day, speed, calendar, &[1; 32]).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_reports_each_meter_in_its_own_moment_and_all_in_order() {
        let replay = test_plan(Day::Fleet, Speed::DEFAULT);

        assert_eq!((replay.meters.len(), replay.readings()), (366, 8_380));
        assert!(replay.reports.is_sorted_by_key(|report| report.due_after));
        assert!(
            replay
                .reports
                .is_sorted_by_key(|report| report.submission.end)
        );
        assert_eq!(
            replay.reports[0].submission.start,
            replay.oldest_start().unwrap()
        );
        let last = &replay.reports[8_379];
        assert!(
            last.due_after <= Duration::from_secs(60),
            "{:?}",
            last.due_after
        );
        // As many meters as wallets.
        let wallets: std::collections::HashSet<&str> = replay
            .meters
            .iter()
            .map(|meter| meter.wallet.as_str())
            .collect();
        assert_eq!(wallets.len(), 366);
    }

    #[test]
    fn a_day_of_one_meter_lies_within_the_24_hours_before_the_first_start() {
        let replay = test_plan("2011-12-24".parse().unwrap(), Speed::Max);

        assert_eq!(replay.meters.len(), 1);
        for report in &replay.reports {
            assert!(
                report.submission.start >= "2026-11-24T04:00:00Z".parse::<DateTime<Utc>>().unwrap()
            );
            assert!(
                report.submission.end <= "2026-11-25T04:00:00Z".parse::<DateTime<Utc>>().unwrap()
            );
            assert_eq!(
                report.submission.end - report.submission.start,
                TimeDelta::minutes(30)
            );
            assert_eq!(report.due_after, Duration::ZERO);
        }
    }
}
