//! The meter data: one real household, half hour by half hour.

use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};
use rust_decimal::Decimal;
use serde::Deserialize;
use thiserror::Error;

/// Solar home electricity data, Ausgrid, customer 12 (CC BY 4.0, see `data/README.md`). Built in, so that the program runs
/// anywhere.
const AUSGRID_CUSTOMER_12: &str = include_str!("../../../data/ausgrid_customer_12_2011-2012.csv");

/// Owner of the replay's meters and subject of its tokens.
pub const METER_OWNER: &str = "ausgrid-12";

/// How the file writes a moment: local time without a zone.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S";

/// The real days that are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// All of them at once, each as one meter.
    Fleet,
    /// One, as one meter.
    One(NaiveDate),
}

/// A text that names no day.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is neither a day (YYYY-MM-DD) nor \"fleet\"")]
pub struct NotADay(String);

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Day, NotADay> {
        if text == "fleet" {
            return Ok(Day::Fleet);
        }
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .map(Day::One)
            .map_err(|_| NotADay(text.to_owned()))
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Day::Fleet => formatter.write_str("fleet"),
            Day::One(day) => write!(formatter, "{day}"),
        }
    }
}

/// One row of the file that has generation above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedReading {
    /// `ausgrid-12-YYYY-MM-DD`: each real day is one meter.
    pub meter: String,
    /// Start of the half hour as the file writes it.
    pub local_start: NaiveDateTime,
    /// Generated energy, kWh, in the digits of the file.
    pub kwh: String,
}

/// Readings cannot be read from the data.
#[derive(Debug, Error)]
pub enum DataFileError {
    #[error("the meter data has no day {day}; it holds {first} to {last}")]
    NoSuchDay {
        day: NaiveDate,
        first: NaiveDate,
        last: NaiveDate,
    },
    #[error("the meter data is malformed at row {row}: {detail}")]
    Malformed { row: usize, detail: String },
}

#[derive(Deserialize)]
struct Row<'a> {
    interval_start_local: &'a str,
    generation_kwh: &'a str,
}

/// The readings of a day or of the fleet, in the order of the file.
pub fn readings_of(day: Day) -> Result<Vec<PlannedReading>, DataFileError> {
    readings_in(AUSGRID_CUSTOMER_12, day)
}

fn readings_in(file: &str, day: Day) -> Result<Vec<PlannedReading>, DataFileError> {
    let mut rows = csv::Reader::from_reader(file.as_bytes());
    let malformed = |row: usize| {
        move |error: &dyn std::fmt::Display| DataFileError::Malformed {
            row: row + 1,
            detail: error.to_string(),
        }
    };
    let headers = rows
        .headers()
        .map_err(|error| malformed(0)(&error))?
        .clone();
    let mut readings = Vec::new();
    let mut days: Option<(NaiveDate, NaiveDate)> = None;
    for (index, record) in rows.records().enumerate() {
        let malformed = malformed(index + 1);
        let record = record.map_err(|error| malformed(&error))?;
        let row: Row = record
            .deserialize(Some(&headers))
            .map_err(|error| malformed(&error))?;
        let local_start = NaiveDateTime::parse_from_str(row.interval_start_local, MOMENT)
            .map_err(|error| malformed(&error))?;
        let kwh = Decimal::from_str_exact(row.generation_kwh).map_err(|error| malformed(&error))?;
        let date = local_start.date();
        days = Some(days.map_or((date, date), |(first, last)| {
            (first.min(date), last.max(date))
        }));
        let is_wanted = match day {
            Day::Fleet => true,
            Day::One(wanted) => wanted == date,
        };
        // The service refuses a reading of zero.
        if is_wanted && kwh > Decimal::ZERO {
            readings.push(PlannedReading {
                meter: format!("{METER_OWNER}-{date}"),
                local_start,
                kwh: row.generation_kwh.to_owned(),
            });
        }
    }
    match (day, days) {
        (Day::One(day), Some((first, last))) if day < first || day > last => {
            Err(DataFileError::NoSuchDay { day, first, last })
        }
        _ => Ok(readings),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_fleet_reports_the_data_to_the_last_digit() {
        let readings = readings_of(Day::Fleet).unwrap();

        let total: Decimal = readings
            .iter()
            .map(|reading| Decimal::from_str_exact(&reading.kwh).unwrap())
            .sum();
        let meters: HashSet<&str> = readings
            .iter()
            .map(|reading| reading.meter.as_str())
            .collect();
        assert_eq!(readings.len(), 8_380);
        assert_eq!(total.to_string(), "1296.4040");
        assert_eq!(meters.len(), 366);
    }

    #[test]
    fn a_day_is_one_meter() {
        let day: Day = "2011-07-01".parse().unwrap();
        let readings = readings_of(day).unwrap();

        assert!(!readings.is_empty() && readings.len() < 48);
        assert!(
            readings
                .iter()
                .all(|reading| reading.meter == "ausgrid-12-2011-07-01")
        );
        assert!(readings.is_sorted_by_key(|reading| reading.local_start));
        let fleet = readings_of(Day::Fleet).unwrap();
        assert_eq!(readings[..], fleet[..readings.len()]);
    }

    #[test]
    fn a_day_outside_the_file_is_refused_with_the_days_of_the_file() {
        let refused = readings_of("2013-01-01".parse().unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the meter data has no day 2013-01-01; it holds 2011-07-01 to 2012-06-30"
        );
        assert!(Day::from_str("yesterday").is_err());
    }

    #[test]
    fn a_broken_row_is_named() {
        let file = "interval_start_local,consumption_kwh,generation_kwh\n2011-07-01 00:00:00,1,2\n2011-07-01 00:30:00,1,x\n";
        let refused = readings_in(file, Day::Fleet).unwrap_err();
        assert!(
            matches!(refused, DataFileError::Malformed { row: 3, .. }),
            "{refused}"
        );
    }
}
