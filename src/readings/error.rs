//! The errors of readings, with their texts for the caller.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use thiserror::Error;
use uuid::Uuid;

use crate::coalesce::CoalesceError;
use crate::domain::{
    BaseUnits, Interval, IntervalError, Kwh, KwhError, MeterSerial, SerialError, TimestampError,
    rfc3339_shortest,
};

/// The fault of a reading itself: the value, and what to do. Sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error(
        "a reading is a JSON object such as {{\"meter_id\": …, \"kwh_amount\": …, \"reading_timestamp\": …}}"
    )]
    NotAnObject,
    /// Broken JSON, or a member given twice.
    #[error("{text}")]
    Json { text: String },
    #[error("{member} is missing; it is {wanted}")]
    Missing {
        member: &'static str,
        wanted: &'static str,
    },
    #[error("{member} must be {wanted}")]
    Kind {
        member: &'static str,
        wanted: &'static str,
    },
    #[error("meter_id {0}")]
    Serial(#[from] SerialError),
    #[error("kwh_amount {0}")]
    Kwh(#[from] KwhError),
    #[error("{member} {error}")]
    Timestamp {
        member: &'static str,
        error: TimestampError,
    },
    #[error("{0}")]
    Interval(#[from] IntervalError),
    #[error("meter_signature has {characters} characters; give 1 to 256, or leave it out")]
    SignatureLength { characters: usize },
    #[error("meter_signature holds the character U+{:04X}; only printable characters are stored", u32::from(*.character))]
    SignatureCharacter { character: char },
    #[error(
        "kwh_amount {kwh} is above this service's limit of {limit} kWh per reading; split the interval or ask the operator"
    )]
    TooMuchEnergy { kwh: Kwh, limit: Decimal },
    #[error(
        "kwh_amount {kwh} is worth less than one base unit; report a longer interval with more energy"
    )]
    WorthNothing { kwh: Kwh },
    #[error(
        "kwh_amount {kwh} is worth more base units than the chain's 64 bits hold; split the interval"
    )]
    WorthTooMuch { kwh: Kwh },
    #[error(
        "kwh_amount {kwh} is worth {base_units} base units, above the limit of {limit} per transaction; \
         split the interval or ask the operator"
    )]
    AboveTransaction {
        kwh: Kwh,
        base_units: BaseUnits,
        limit: BaseUnits,
    },
    #[error(
        "the interval starts at {}, more than {} days ago; this service takes no readings that old: ask the operator",
        rfc3339_shortest(*.start), days(*.limit)
    )]
    TooOld {
        start: DateTime<Utc>,
        limit: Duration,
    },
    #[error(
        "reading_timestamp {} is more than 5 minutes in the future; check the meter's clock and send the reading \
         once its interval is over",
        rfc3339_shortest(*.end)
    )]
    InFuture { end: DateTime<Utc> },
}

/// A reading is not stored, or a query about readings has no result.
#[derive(Debug, Error)]
pub enum ReadingError {
    /// 400. The sentence begins as in the original system.
    #[error("Reading validation failed: {0}")]
    Invalid(#[from] Invalid),
    /// 404, whether there is no such meter or it is another user's: the answer does not reveal which.
    #[error(
        "meter {serial} is not known; check the meter_id, or register it with POST /api/meters"
    )]
    UnknownMeter { serial: MeterSerial },
    /// 409: the stored reading was paid or will be.
    #[error(
        "meter {serial} has reported {stored} kWh for the interval {interval} already (reading {reading_id}); \
         {sent} kWh is another value, and a stored reading does not change"
    )]
    OtherValue {
        serial: MeterSerial,
        interval: Interval,
        reading_id: Uuid,
        stored: Kwh,
        sent: Kwh,
    },
    /// 409: no moment is paid twice.
    #[error(
        "the interval {interval} of meter {serial} overlaps {stored} of reading {reading_id}; \
         report only time that no reading covers"
    )]
    Overlap {
        serial: MeterSerial,
        interval: Interval,
        reading_id: Uuid,
        stored: Interval,
    },
    /// 503: the queue is full. Nothing was stored.
    #[error("more readings wait to be stored than may; nothing was stored, send it again later")]
    Busy,
    /// 503. Nothing was stored.
    #[error("the service is shutting down; nothing was stored, send it again")]
    Stopping,
    /// 503. Nothing was stored.
    #[error(
        "the database cannot store readings at the moment; nothing was stored, send it again later"
    )]
    Unavailable,
    /// 503: the answer to COMMIT was lost.
    #[error(
        "whether the reading was stored is not known; send it again: it will not be stored twice"
    )]
    OutcomeUnknown,
    /// 500; the cause is in the log.
    #[error("the reading could not be stored; nothing was stored, tell the operator")]
    NotStored,
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl ReadingError {
    /// The stored reading that is in conflict with this one.
    pub fn stored_reading(&self) -> Option<Uuid> {
        match self {
            ReadingError::OtherValue { reading_id, .. }
            | ReadingError::Overlap { reading_id, .. } => Some(*reading_id),
            _ => None,
        }
    }
}

impl From<CoalesceError> for ReadingError {
    fn from(error: CoalesceError) -> ReadingError {
        match error {
            CoalesceError::Full => ReadingError::Busy,
            CoalesceError::Closed => ReadingError::Stopping,
            CoalesceError::Failed => ReadingError::OutcomeUnknown,
        }
    }
}

/// Whole days: the limit is configured in days.
fn days(limit: Duration) -> u64 {
    limit.as_secs() / (24 * 60 * 60)
}
