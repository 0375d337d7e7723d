//! Energy as a meter reports it.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::exact::{ExactError, parse_exact};
use super::excerpt::excerpt;

/// Digits after the point at most: a femtowatt-hour, finer than any meter.
const FRACTION_DIGITS_MAX: u32 = 18;
/// Below 10^20 kWh: with 18 digits after the point it is what NUMERIC(38, 18) holds.
const KWH_LIMIT: Decimal = Decimal::from_parts(1_661_992_960, 1_808_227_885, 5, false, 0);

/// Energy in kilowatt-hours: above zero, exact, at most 18 digits after the point. Always normalised, so that equal
/// amounts are equal in every way: 1.50 is 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kwh(Decimal);

/// Why an amount of energy is refused. Nothing is ever rounded to fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KwhError {
    #[error("{text} is not a decimal number such as 1.25")]
    NotANumber { text: String },
    #[error("{text} is zero; a reading reports energy above 0 kWh")]
    Zero { text: String },
    #[error("{text} is negative; a reading reports energy above 0 kWh")]
    Negative { text: String },
    #[error(
        "{text} has more than 18 digits after the decimal point; it is not rounded, so report fewer"
    )]
    TooFine { text: String },
    #[error(
        "{text} has more digits than can be held exactly (28); it is not rounded, so report fewer"
    )]
    TooManyDigits { text: String },
    #[error("{text} is too large: the limit is 10^20 kWh")]
    TooLarge { text: String },
}

impl Kwh {
    /// Reads a decimal string, or the text of a JSON number (`1.25`, `1e-3`), exactly.
    pub fn parse(text: &str) -> Result<Kwh, KwhError> {
        let shown = || excerpt(text);
        let amount = parse_exact(text, FRACTION_DIGITS_MAX).map_err(|error| match error {
            ExactError::NotANumber => KwhError::NotANumber { text: shown() },
            ExactError::TooFine => KwhError::TooFine { text: shown() },
            ExactError::TooManyDigits => KwhError::TooManyDigits { text: shown() },
        })?;
        Kwh::checked(amount, shown)
    }

    /// The same limits for an amount that is a decimal already.
    pub fn from_decimal(amount: Decimal) -> Result<Kwh, KwhError> {
        Kwh::checked(amount, || amount.to_string())
    }

    fn checked(amount: Decimal, shown: impl Fn() -> String) -> Result<Kwh, KwhError> {
        if amount.is_zero() {
            return Err(KwhError::Zero { text: shown() });
        }
        if amount.is_sign_negative() {
            return Err(KwhError::Negative { text: shown() });
        }
        if amount >= KWH_LIMIT {
            return Err(KwhError::TooLarge { text: shown() });
        }
        let amount = amount.normalize();
        if amount.scale() > FRACTION_DIGITS_MAX {
            return Err(KwhError::TooFine { text: shown() });
        }
        Ok(Kwh(amount))
    }

    /// The amount, normalised.
    pub fn as_decimal(self) -> Decimal {
        self.0
    }
}

/// Canonical: no exponent, no trailing zeros, no sign. Receipts hash this text.
impl fmt::Display for Kwh {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl FromStr for Kwh {
    type Err = KwhError;

    fn from_str(text: &str) -> Result<Kwh, KwhError> {
        Kwh::parse(text)
    }
}

/// As a decimal string: a JSON number would be read as a float.
impl Serialize for Kwh {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kwh {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kwh, D::Error> {
        let text = String::deserialize(deserializer)?;
        Kwh::parse(&text).map_err(serde::de::Error::custom)
    }
}
