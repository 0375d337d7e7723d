//! Tokens, and how many of them an amount of energy is worth.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::energy::Kwh;
use super::exact::parse_exact;
use super::excerpt::excerpt;

/// Tokens in base units: 1 token = 10^decimals base units. What the chain counts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUnits(u64);

/// A text or number that is no amount of base units.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{text} is not an amount of base units: a whole number from 0 to 18446744073709551615, digits only"
)]
pub struct BaseUnitsError {
    text: String,
}

impl BaseUnits {
    pub const ZERO: BaseUnits = BaseUnits(0);
    pub const MAX: BaseUnits = BaseUnits(u64::MAX);

    pub const fn new(base_units: u64) -> BaseUnits {
        BaseUnits(base_units)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` when the sum does not fit the chain's 64 bits.
    pub fn checked_add(self, other: BaseUnits) -> Option<BaseUnits> {
        self.0.checked_add(other.0).map(BaseUnits)
    }

    /// `None` when the sum does not fit the chain's 64 bits.
    pub fn checked_sum(amounts: impl IntoIterator<Item = BaseUnits>) -> Option<BaseUnits> {
        amounts
            .into_iter()
            .try_fold(BaseUnits::ZERO, BaseUnits::checked_add)
    }

    /// For a NUMERIC(20, 0) column.
    pub fn to_decimal(self) -> Decimal {
        Decimal::from(self.0)
    }

    /// From a NUMERIC(20, 0) column.
    pub fn from_decimal(amount: Decimal) -> Result<BaseUnits, BaseUnitsError> {
        let amount = amount.normalize();
        u64::try_from(amount.mantissa())
            .ok()
            .filter(|_| amount.scale() == 0)
            .map(BaseUnits)
            .ok_or_else(|| BaseUnitsError {
                text: amount.to_string(),
            })
    }
}

impl fmt::Display for BaseUnits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl FromStr for BaseUnits {
    type Err = BaseUnitsError;

    fn from_str(text: &str) -> Result<BaseUnits, BaseUnitsError> {
        // The standard parser takes a leading '+', which no amount of ours has.
        Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .map(BaseUnits)
            .ok_or_else(|| BaseUnitsError {
                text: excerpt(text),
            })
    }
}

/// As a string: amounts pass 2^53, where JavaScript's numbers end.
impl Serialize for BaseUnits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BaseUnits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BaseUnits, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Tokens per kilowatt-hour, and how many base units a token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRate {
    ratio: Decimal,
    decimals: u8,
}

/// Why a rate is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    #[error("{ratio} tokens per kWh: the ratio must be above 0")]
    RatioNotPositive { ratio: Decimal },
    #[error(
        "{text} is not a ratio that can be held exactly: a decimal number above 0 with at most 28 digits"
    )]
    RatioNotExact { text: String },
    #[error("{decimals} decimals: a token has 0 to 9")]
    TooManyDecimals { decimals: u8 },
}

impl TokenRate {
    /// With 9 decimals, 1.8 × 10^10 tokens fit the chain's 64 bits.
    pub const DECIMALS_MAX: u8 = 9;
    /// Digits after the point that a `Decimal` holds.
    const RATIO_SCALE_MAX: u32 = 28;

    /// `ratio`: whole tokens per kWh, above 0; `decimals`: the mint's, 0..=9.
    pub fn new(ratio: Decimal, decimals: u8) -> Result<TokenRate, RateError> {
        if ratio.is_zero() || ratio.is_sign_negative() {
            return Err(RateError::RatioNotPositive { ratio });
        }
        if decimals > TokenRate::DECIMALS_MAX {
            return Err(RateError::TooManyDecimals { decimals });
        }
        Ok(TokenRate {
            ratio: ratio.normalize(),
            decimals,
        })
    }

    /// The same from text, exactly: `Decimal`'s own parser would round.
    pub fn parse(ratio: &str, decimals: u8) -> Result<TokenRate, RateError> {
        let exact = parse_exact(ratio, TokenRate::RATIO_SCALE_MAX).map_err(|_| {
            RateError::RatioNotExact {
                text: excerpt(ratio),
            }
        })?;
        TokenRate::new(exact, decimals)
    }

    /// Whole tokens per kWh, normalised.
    pub fn ratio(self) -> Decimal {
        self.ratio
    }

    pub fn decimals(self) -> u8 {
        self.decimals
    }
}

impl Kwh {
    /// Tokens for this energy, rounded down: we never mint more than was measured.
    /// `None` when the amount does not fit the chain's 64 bits.
    pub fn to_base_units(self, rate: TokenRate) -> Option<BaseUnits> {
        let kwh = self.as_decimal();
        // Two mantissas of 96 bits: their product needs 192, which neither `Decimal` nor u128 has.
        let product = product(
            kwh.mantissa().unsigned_abs(),
            rate.ratio.mantissa().unsigned_abs(),
        );
        let scale = kwh.scale() + rate.ratio.scale();
        let decimals = u32::from(rate.decimals);
        let amount = if decimals >= scale {
            times_power_of_ten(product, decimals - scale)?
        } else {
            divided_by_power_of_ten(product, scale - decimals)
        };
        match amount {
            [low, 0, 0, 0] => Some(BaseUnits(low)),
            _ => None,
        }
    }
}

/// 256 bits, least significant limb first.
type Wide = [u64; 4];

/// The largest power of ten that a limb holds.
const LIMB_POWER_MAX: u32 = 19;

fn product(left: u128, right: u128) -> Wide {
    let mut product = [0; 4];
    for (i, x) in limbs(left).into_iter().enumerate() {
        let mut carry = 0;
        for (j, y) in limbs(right).into_iter().enumerate() {
            // At most (2^64 − 1)² + 2 (2^64 − 1) = 2^128 − 1.
            let sum = u128::from(product[i + j]) + u128::from(x) * u128::from(y) + carry;
            [product[i + j], _] = limbs(sum);
            carry = sum >> 64;
        }
        [product[i + 2], _] = limbs(carry);
    }
    product
}

/// `None` past 256 bits.
fn times_power_of_ten(mut value: Wide, power: u32) -> Option<Wide> {
    let factor = u128::from(10_u64.checked_pow(power)?);
    let mut carry = 0;
    for limb in &mut value {
        let product = u128::from(*limb) * factor + carry;
        [*limb, _] = limbs(product);
        carry = product >> 64;
    }
    (carry == 0).then_some(value)
}

/// Rounded down, also when done in steps: ⌊⌊x / a⌋ / b⌋ = ⌊x / ab⌋.
fn divided_by_power_of_ten(mut value: Wide, mut power: u32) -> Wide {
    while power > 0 {
        let step = power.min(LIMB_POWER_MAX);
        let divisor = u128::from(10_u64.pow(step));
        let mut remainder = 0;
        for limb in value.iter_mut().rev() {
            let dividend = remainder << 64 | u128::from(*limb);
            [*limb, _] = limbs(dividend / divisor);
            remainder = dividend % divisor;
        }
        power -= step;
    }
    value
}

fn limbs(value: u128) -> [u64; 2] {
    [(value & u128::from(u64::MAX)) as u64, (value >> 64) as u64]
}
