//! A sum of base units.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueRef};
use sqlx::{Decode, Postgres, Type};

use crate::domain::BaseUnits;

/// A sum of base units. All amounts that were ever minted may exceed the 64 bits of a supply, since tokens may be burned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Total(u128);

impl Total {
    pub const ZERO: Total = Total(0);

    pub fn new(base_units: u128) -> Total {
        Total(base_units)
    }

    /// The difference; zero where `other` is larger.
    pub fn less(self, other: Total) -> Total {
        Total(self.0.saturating_sub(other.0))
    }
}

impl From<BaseUnits> for Total {
    fn from(base_units: BaseUnits) -> Total {
        Total(u128::from(base_units.get()))
    }
}

/// Exceeding 128 bits would take 2^64 amounts of 2^64 each.
impl Add for Total {
    type Output = Total;

    fn add(self, other: Total) -> Total {
        Total(self.0 + other.0)
    }
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Total) {
        *self = *self + other;
    }
}

impl Sum for Total {
    fn sum<I: Iterator<Item = Total>>(totals: I) -> Total {
        totals.fold(Total::ZERO, Total::add)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// From the sum of a NUMERIC(20, 0) column.
impl Decode<'_, Postgres> for Total {
    fn decode(value: PgValueRef<'_>) -> Result<Total, BoxDynError> {
        let sum = <Decimal as Decode<'_, Postgres>>::decode(value)?;
        Ok(Total(u128::try_from(sum)?))
    }
}

impl Type<Postgres> for Total {
    fn type_info() -> PgTypeInfo {
        <Decimal as Type<Postgres>>::type_info()
    }
}

/// As a string, like all base units.
impl Serialize for Total {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
