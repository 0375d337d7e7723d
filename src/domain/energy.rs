//! Energy as a meter reports it, in kilowatt-hours.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::exact::{ExactError, parse_exact};
use super::excerpt::excerpt;

/// 10^20 kWh: amounts below it, with 18 digits after the decimal point, fit NUMERIC(38, 18).
const KWH_LIMIT: Decimal = Decimal::from_parts(1_661_992_960, 1_808_227_885, 5, false, 0);

/// Energy in kilowatt-hours: above zero, exact, at most 18 digits after the decimal point. Always normalized, so that equal
/// amounts have equal representations: 1.50 is 1.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kwh(Decimal);

/// A rejected amount of energy. No amount is ever rounded to fit.
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
    /// The most digits after the decimal point. The last one is a femtowatt-hour, finer than any meter measures.
    pub const FRACTION_DIGITS_MAX: u32 = 18;

    /// Parses a decimal string, or the text of a JSON number (`1.25`, `1e-3`), exactly.
    pub fn parse(text: &str) -> Result<Kwh, KwhError> {
        let shown = || excerpt(text);
        let amount = parse_exact(text, Kwh::FRACTION_DIGITS_MAX).map_err(|error| match error {
            ExactError::NotANumber => KwhError::NotANumber { text: shown() },
            ExactError::TooFine => KwhError::TooFine { text: shown() },
            ExactError::TooManyDigits => KwhError::TooManyDigits { text: shown() },
        })?;
        Kwh::checked(amount, shown)
    }

    /// Applies the same limits to an amount that is a decimal already.
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
        if amount.scale() > Kwh::FRACTION_DIGITS_MAX {
            return Err(KwhError::TooFine { text: shown() });
        }
        Ok(Kwh(amount))
    }

    /// The amount, normalized.
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

/// As a decimal string: many parsers read a JSON number as a float.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_amount_has_one_text() {
        for (text, canonical) in [
            ("1.25", "1.25"),
            ("1.2500", "1.25"),
            ("3", "3"),
            ("3.000", "3"),
            ("100", "100"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("1e-3", "0.001"),
            ("1200e-3", "1.2"),
            ("0.0000000000000001e15", "0.1"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("99999999999999999999", "99999999999999999999"),
            ("1.000000000000000000000000000000000000000000", "1"),
            // 2^96 − 1, the largest mantissa of the type.
            (
                "79228162514.264337593543950335e0",
                "79228162514.264337593543950335",
            ),
        ] {
            let parsed = Kwh::parse(text).map(|kwh| kwh.to_string());
            assert_eq!(parsed, Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_json_number_is_not_an_amount() {
        for text in [
            "", " ", "1.", ".5", "+1", "01", "00", "1,5", "1 ", " 1", "1e", "1e+", "e1", "1.5.0",
            "0x10", "NaN", "Infinity", "-", "--1", "1e1.5", "1_000", "١", "1\0",
        ] {
            assert!(
                matches!(Kwh::parse(text), Err(KwhError::NotANumber { .. })),
                "{text:?}: {:?}",
                Kwh::parse(text)
            );
        }
    }

    #[test]
    fn each_rejection_has_its_own_error() {
        type Check = fn(&KwhError) -> bool;
        let zero: Check = |error| matches!(error, KwhError::Zero { .. });
        let negative: Check = |error| matches!(error, KwhError::Negative { .. });
        let fine: Check = |error| matches!(error, KwhError::TooFine { .. });
        let digits: Check = |error| matches!(error, KwhError::TooManyDigits { .. });
        let large: Check = |error| matches!(error, KwhError::TooLarge { .. });
        for (text, is_expected) in [
            ("0", zero),
            ("-0", zero),
            ("0.000", zero),
            ("0e999999999999999999999999", zero),
            ("-1", negative),
            ("-0.000000000000000001", negative),
            ("1e-19", fine),
            ("1e-99999999999999999999", fine),
            ("0.1234567890123456789", fine),
            ("100000000000000000000", large),
            ("1e20", large),
            ("1e999999999999999999999", digits),
            // 30 digits that Decimal's own parser rounds to 100.
            ("99.9999999999999999999999999999", fine),
            ("99999999999999999999.9999999999", digits),
            ("79228162514264337593.5439503360", digits),
        ] {
            let error = Kwh::parse(text).unwrap_err();
            assert!(is_expected(&error), "{text}: {error:?}");
        }
    }

    #[test]
    fn a_decimal_is_validated_like_a_text() {
        assert_eq!(Kwh::from_decimal(Decimal::new(1_500, 3)), Kwh::parse("1.5"));
        assert!(matches!(
            Kwh::from_decimal(Decimal::new(1, 19)),
            Err(KwhError::TooFine { .. })
        ));
        // Nineteen digits after the decimal point, of which the last is a zero.
        assert_eq!(Kwh::from_decimal(Decimal::new(10, 19)), Kwh::parse("1e-18"));
        assert!(matches!(
            Kwh::from_decimal(Decimal::MAX),
            Err(KwhError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_text_of_an_error_is_short_and_printable() {
        let text = format!("1\n{}", "x".repeat(10_000));
        let error = Kwh::parse(&text).unwrap_err().to_string();
        assert!(
            error.starts_with("1\\nxxx") && error.contains('…'),
            "{error}"
        );
        assert!(error.len() < 200, "{error}");
    }

    /// The canonical text of `digits` × 10^power, by moving the decimal point within the text.
    fn written_out(digits: &str, power: i32) -> String {
        let (integer, fraction) = if power >= 0 {
            (
                format!("{digits}{}", "0".repeat(power as usize)),
                String::new(),
            )
        } else {
            let places = power.unsigned_abs() as usize;
            let padded = format!("{digits:0>width$}", width = places + 1);
            let (integer, fraction) = padded.split_at(padded.len() - places);
            (integer.to_owned(), fraction.to_owned())
        };
        let integer = integer.trim_start_matches('0');
        let integer = if integer.is_empty() { "0" } else { integer };
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() {
            integer.to_owned()
        } else {
            format!("{integer}.{fraction}")
        }
    }

    proptest! {
        #[test]
        fn an_accepted_amount_is_exact(
            integer in "0|[1-9][0-9]{0,24}",
            fraction in "|[0-9]{1,24}",
            exponent in -24_i32..24,
            plain in any::<bool>(),
        ) {
            let exponent = if plain { 0 } else { exponent };
            let point = if fraction.is_empty() { "" } else { "." };
            let suffix = if plain { String::new() } else { format!("e{exponent}") };
            let text = format!("{integer}{point}{fraction}{suffix}");
            let power = exponent - fraction.len() as i32;
            let exact = written_out(&format!("{integer}{fraction}"), power);
            let (whole, part) = exact.split_once('.').unwrap_or((&exact, ""));
            let digits = exact.replace('.', "");
            let digits = digits.trim_start_matches('0');
            match Kwh::parse(&text) {
                Ok(kwh) => {
                    prop_assert_eq!(kwh.to_string(), exact);
                    prop_assert_eq!(Kwh::parse(&kwh.to_string()), Ok(kwh));
                    let json = serde_json::to_string(&kwh).unwrap();
                    prop_assert_eq!(serde_json::from_str::<Kwh>(&json).unwrap(), kwh);
                }
                Err(KwhError::Zero { .. }) => prop_assert_eq!(exact, "0"),
                Err(KwhError::TooFine { .. }) => prop_assert!(part.len() > 18),
                Err(KwhError::TooLarge { .. }) => prop_assert!(whole.len() > 20),
                Err(KwhError::TooManyDigits { .. }) => {
                    // 2^96 − 1, the largest mantissa, as text.
                    let most = "79228162514264337593543950335";
                    let order = digits.len().cmp(&most.len()).then(digits.cmp(most));
                    prop_assert!(order.is_gt(), "{}", exact);
                }
                Err(error) => prop_assert!(false, "{text}: {error}"),
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = Kwh::parse(&text);
        }

        #[test]
        fn the_order_is_that_of_the_amounts(left in 1_u64.., right in 1_u64.., scale in 0_u32..=18) {
            let kwh = |mantissa: u64| {
                Kwh::from_decimal(Decimal::from_i128_with_scale(mantissa.into(), scale)).unwrap()
            };
            prop_assert_eq!(kwh(left).cmp(&kwh(right)), left.cmp(&right));
        }
    }
}
