//! Parses decimal text into a [`Decimal`], exactly or not at all.
//!
//! `Decimal`'s own parsers round: 99.99…9 with 30 digits becomes 100. A parser must not create money.

use rust_decimal::Decimal;

/// Digits of the largest mantissa that a `Decimal` holds, 2^96 − 1.
const MANTISSA_DIGITS_MAX: usize = 29;

/// The text has no exact `Decimal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExactError {
    NotANumber,
    /// More digits after the decimal point than the caller allows.
    TooFine,
    /// More digits than 96 bits hold.
    TooManyDigits,
}

/// Parses a number as JSON writes it (RFC 8259: no leading zeros, no `+`, exponent allowed), with at most `scale_max`
/// (0..=28) digits after the point once the exponent is applied and trailing zeros are dropped. The result is normalized.
pub(super) fn parse_exact(text: &str, scale_max: u32) -> Result<Decimal, ExactError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (number, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, parse_exponent(exponent)?),
        None => (unsigned, 0),
    };
    let (integer, fraction) = match number.split_once('.') {
        Some((integer, fraction)) if !fraction.is_empty() => (integer, fraction),
        Some(_) => return Err(ExactError::NotANumber),
        None => (number, ""),
    };
    let leading_zero = integer.len() > 1 && integer.starts_with('0');
    if integer.is_empty() || leading_zero || !is_digits(integer) || !is_digits(fraction) {
        return Err(ExactError::NotANumber);
    }

    let digits = [integer, fraction].concat();
    let significant = digits.trim_end_matches('0');
    let dropped_zeros = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(Decimal::ZERO);
    }
    // The value is `significant` × 10^power. Lengths fit i64; an excessive exponent is saturated.
    let power = exponent
        .saturating_add(length(dropped_zeros))
        .saturating_sub(length(fraction.len()));
    if power < -i64::from(scale_max) {
        return Err(ExactError::TooFine);
    }
    if significant.len() > MANTISSA_DIGITS_MAX {
        return Err(ExactError::TooManyDigits);
    }
    let (zeros, scale) = if power < 0 {
        (0, power.unsigned_abs())
    } else {
        (power.unsigned_abs(), 0)
    };
    let mantissa = significant
        .parse::<i128>()
        .ok()
        .zip(u32::try_from(zeros).ok())
        .and_then(|(mantissa, zeros)| mantissa.checked_mul(10_i128.checked_pow(zeros)?))
        .ok_or(ExactError::TooManyDigits)?;
    let signed = if negative { -mantissa } else { mantissa };
    u32::try_from(scale)
        .ok()
        .and_then(|scale| Decimal::try_from_i128_with_scale(signed, scale).ok())
        .ok_or(ExactError::TooManyDigits)
}

/// Parses an exponent without its `e`. An excessively long one saturates, and is rejected by its size.
fn parse_exponent(text: &str) -> Result<i64, ExactError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !is_digits(digits) {
        return Err(ExactError::NotANumber);
    }
    let magnitude = digits.bytes().fold(0_i64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    Ok(if negative { -magnitude } else { magnitude })
}

fn length(characters: usize) -> i64 {
    i64::try_from(characters).unwrap_or(i64::MAX)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
