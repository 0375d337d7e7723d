//! Converts energy to tokens. Amounts are in base units, the chain's unit; the rate is the operator's
//! (`TOKENIZATION_KWH_TO_TOKEN_RATIO`, `TOKENIZATION_DECIMALS`).
//!
//! Invariant: the conversion is exact up to one rounding down at the end, so no more is minted than was measured.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::energy::Kwh;
use super::exact::parse_exact;
use super::excerpt::excerpt;

/// Tokens in base units, the unit in which the chain counts: 1 token = 10^decimals base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUnits(u64);

/// A text or number that is not an amount of base units.
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

    /// As a NUMERIC(20, 0) column stores it.
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
        // The standard parser accepts a leading '+', which no amount here has.
        Some(text)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .map(BaseUnits)
            .ok_or_else(|| BaseUnitsError {
                text: excerpt(text),
            })
    }
}

/// As a string: amounts exceed 2^53, the limit of JavaScript's exact integers.
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

/// A rejected rate.
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
    /// Digits after the decimal point that a `Decimal` holds.
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

    /// Parses the ratio exactly, where `Decimal`'s own parser would round.
    pub fn parse(ratio: &str, decimals: u8) -> Result<TokenRate, RateError> {
        let exact = parse_exact(ratio, TokenRate::RATIO_SCALE_MAX).map_err(|_| {
            RateError::RatioNotExact {
                text: excerpt(ratio),
            }
        })?;
        TokenRate::new(exact, decimals)
    }

    /// Whole tokens per kWh, normalized.
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
        // Two mantissas of 96 bits have a product of 192 bits, which fits neither `Decimal` nor u128.
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

/// Returns `None` when the product exceeds 256 bits.
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

/// Rounded down, even when done in steps: ⌊⌊x / a⌋ / b⌋ = ⌊x / ab⌋.
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

/// The low and the high half.
fn limbs(value: u128) -> [u64; 2] {
    // Both halves have 64 bits.
    [(value & u128::from(u64::MAX)) as u64, (value >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(ratio: &str, decimals: u8) -> TokenRate {
        TokenRate::parse(ratio, decimals).unwrap()
    }

    fn base_units(kwh: &str, rate: TokenRate) -> Option<u64> {
        Kwh::parse(kwh)
            .unwrap()
            .to_base_units(rate)
            .map(BaseUnits::get)
    }

    #[test]
    fn energy_converts_by_the_ratio_and_rounds_down() {
        let one = rate("1", 9);
        assert_eq!(base_units("1.25", one), Some(1_250_000_000));
        assert_eq!(base_units("0.0000000019", one), Some(1));
        assert_eq!(base_units("0.0000000009", one), Some(0));
        assert_eq!(
            base_units("3", rate("0.3333333333333333333333333333", 0)),
            Some(0)
        );
        assert_eq!(
            base_units("3.1", rate("0.3333333333333333333333333333", 0)),
            Some(1)
        );
        assert_eq!(base_units("1.999999999999999999", rate("1", 0)), Some(1));
    }

    #[test]
    fn the_chains_64_bits_are_the_limit() {
        let one = rate("1", 9);
        assert_eq!(base_units("18446744073.709551615", one), Some(u64::MAX));
        assert_eq!(base_units("18446744073.709551615999", one), Some(u64::MAX));
        assert_eq!(base_units("18446744073.709551616", one), None);
        // Products of 2^64, 2^128 and more must not wrap to small numbers.
        assert_eq!(base_units("18446744073709551616", rate("1", 0)), None);
        assert_eq!(
            base_units("18446744073709551616", rate("18446744073709551616", 0)),
            None
        );
        let most = TokenRate::new(Decimal::MAX, 9).unwrap();
        assert_eq!(base_units("99999999999999999999", most), None);
    }

    #[test]
    fn a_rate_is_positive_and_exact() {
        assert!(matches!(
            TokenRate::parse("0", 9),
            Err(RateError::RatioNotPositive { .. })
        ));
        assert!(matches!(
            TokenRate::parse("-1", 9),
            Err(RateError::RatioNotPositive { .. })
        ));
        assert!(matches!(
            TokenRate::parse("99.9999999999999999999999999999", 9),
            Err(RateError::RatioNotExact { .. })
        ));
        assert!(matches!(
            TokenRate::parse("1", 10),
            Err(RateError::TooManyDecimals { decimals: 10 })
        ));
        assert_eq!(rate("1.50", 9).ratio().to_string(), "1.5");
    }

    #[test]
    fn base_units_are_strings_of_digits() {
        let amount = BaseUnits::new(u64::MAX);
        assert_eq!(
            serde_json::to_string(&amount).unwrap(),
            "\"18446744073709551615\""
        );
        assert_eq!("18446744073709551615".parse(), Ok(amount));
        for text in ["", "+1", "-1", " 1", "1.0", "18446744073709551616", "1e3"] {
            assert!(text.parse::<BaseUnits>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<BaseUnits>("7").is_err());
    }

    #[test]
    fn a_sum_that_does_not_fit_is_none() {
        let max = BaseUnits::MAX;
        assert_eq!(BaseUnits::checked_sum([max, BaseUnits::ZERO]), Some(max));
        assert_eq!(BaseUnits::checked_sum([max, BaseUnits::new(1)]), None);
        assert_eq!(BaseUnits::checked_sum([]), Some(BaseUnits::ZERO));
    }

    #[test]
    fn base_units_and_numeric_are_the_same_number() {
        for amount in [0, 1, u64::MAX] {
            let amount = BaseUnits::new(amount);
            assert_eq!(BaseUnits::from_decimal(amount.to_decimal()), Ok(amount));
        }
        assert!(BaseUnits::from_decimal(Decimal::new(15, 1)).is_err());
        assert!(BaseUnits::from_decimal(Decimal::from(-1)).is_err());
        assert!(BaseUnits::from_decimal(Decimal::from(1_u128 << 64)).is_err());
    }

    /// Long multiplication as taught at school, on the decimal texts. Gives the whole part of
    /// `kwh` × `ratio` × 10^decimals.
    fn by_hand(kwh: Decimal, ratio: Decimal, decimals: u8) -> String {
        let digits = |number: Decimal| -> Vec<u32> {
            let text = number.mantissa().to_string();
            text.bytes()
                .rev()
                .map(|digit| u32::from(digit - b'0'))
                .collect()
        };
        let (left, right) = (digits(kwh), digits(ratio));
        let mut product = vec![0; left.len() + right.len() + 1];
        for (i, x) in left.iter().enumerate() {
            for (j, y) in right.iter().enumerate() {
                product[i + j] += x * y;
            }
        }
        for i in 0..product.len() - 1 {
            product[i + 1] += product[i] / 10;
            product[i] %= 10;
        }
        let shifted: Vec<u32> = std::iter::repeat_n(0, decimals.into())
            .chain(product)
            .collect();
        let fraction_digits = (kwh.scale() + ratio.scale()) as usize;
        let whole: String = shifted
            .iter()
            .skip(fraction_digits)
            .rev()
            .map(|digit| digit.to_string())
            .collect();
        let whole = whole.trim_start_matches('0');
        if whole.is_empty() {
            "0".to_owned()
        } else {
            whole.to_owned()
        }
    }

    /// Mantissas of all lengths up to 96 bits, so that products of all lengths occur.
    fn decimal(scale_max: u32) -> impl Strategy<Value = Decimal> {
        (1_u128..1 << 96, 0_u32..96, 0..=scale_max).prop_map(|(mantissa, shift, scale)| {
            let mantissa = (mantissa >> shift).max(1) as i128;
            Decimal::from_i128_with_scale(mantissa, scale)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn conversion_is_exact(kwh in decimal(18), ratio in decimal(28), decimals in 0_u8..=9) {
            let Ok(amount) = Kwh::from_decimal(kwh) else { return Ok(()) };
            let rate = TokenRate::new(ratio, decimals).unwrap();
            let expected = by_hand(kwh, ratio, decimals);
            match amount.to_base_units(rate) {
                Some(base_units) => prop_assert_eq!(base_units.to_string(), expected),
                None => prop_assert!(expected.parse::<u64>().is_err(), "{} fits", expected),
            }
        }
    }
}
