//! Faults that make a stored reading unreadable.

use std::fmt;

use thiserror::Error;

use crate::domain::{BaseUnitsError, IntervalError, KwhError};

/// A value that a reading cannot have had when it was paid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnreadableReading {
    #[error("its {0} is missing")]
    Missing(ReadingPart),
    #[error("its {part} is {text}, which is not a number that a reading can have")]
    NotANumber { part: ReadingPart, text: String },
    #[error(transparent)]
    Interval(#[from] IntervalError),
    #[error(transparent)]
    Kwh(#[from] KwhError),
    #[error(transparent)]
    BaseUnits(#[from] BaseUnitsError),
}

/// A part of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadingPart {
    Start,
    End,
    Energy,
    Amount,
    Meter,
    Wallet,
    Salt,
}

impl fmt::Display for ReadingPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ReadingPart::Start => "start",
            ReadingPart::End => "end",
            ReadingPart::Energy => "energy",
            ReadingPart::Amount => "amount",
            ReadingPart::Meter => "meter",
            ReadingPart::Wallet => "wallet",
            ReadingPart::Salt => "salt",
        })
    }
}
