//! Parses one setting, or refuses it with one sentence.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command, Error};
use rust_decimal::Decimal;

/// The error of a value, as the predicate of a sentence: "is out of range".
type Predicate = &'static str;

const OUT_OF_RANGE: Predicate = "is out of range";
/// Longer values are truncated in an error message, which stays one sentence.
const SHOWN_CHARS_MAX: usize = 60;

type Reader<T> = Arc<dyn Fn(&str) -> Result<T, Predicate> + Send + Sync>;

/// Parses the text of one setting, for clap. `allowed` completes the sentence "give …".
#[derive(Clone)]
pub(super) struct Setting<T> {
    allowed: String,
    read: Reader<T>,
}

impl<T: 'static> Setting<T> {
    fn new(
        allowed: impl Into<String>,
        read: impl Fn(&str) -> Result<T, Predicate> + Send + Sync + 'static,
    ) -> Setting<T> {
        Setting {
            allowed: allowed.into(),
            read: Arc::new(read),
        }
    }

    /// The same setting with its values converted to another type.
    pub(super) fn map<U: 'static>(
        self,
        convert: impl Fn(T) -> U + Send + Sync + 'static,
    ) -> Setting<U> {
        Setting::new(self.allowed, move |text| (self.read)(text).map(&convert))
    }
}

/// Whole numbers within `range`.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> Setting<T>
where
    T: Copy + Into<i128> + TryFrom<i128> + 'static,
{
    let range: RangeInclusive<i128> = (*range.start()).into()..=(*range.end()).into();
    let allowed = format!("a whole number from {} to {}", range.start(), range.end());
    Setting::new(allowed, move |text| {
        let number: i128 = text.parse().map_err(|_| "is not a whole number")?;
        Some(number)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or(OUT_OF_RANGE)
    })
}

/// Converts a setting in days.
pub(super) fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// Exact decimals within `range`: a number that [`Decimal`] would round is refused.
pub(super) fn decimal(range: RangeInclusive<Decimal>) -> Setting<Decimal> {
    let allowed = format!("a number from {} to {}", range.start(), range.end());
    Setting::new(allowed, move |text| {
        Some(exact(text)?)
            .filter(|number| range.contains(number))
            .ok_or(OUT_OF_RANGE)
    })
}

/// Exact decimals above zero.
pub(super) fn decimal_above_zero() -> Setting<Decimal> {
    Setting::new("a number above 0", |text| {
        Some(exact(text)?)
            .filter(|number| *number > Decimal::ZERO)
            .ok_or(OUT_OF_RANGE)
    })
}

fn exact(text: &str) -> Result<Decimal, Predicate> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err("is not a number");
    }
    Decimal::from_str_exact(text).map_err(|_| "has more digits than can be kept exactly")
}

/// Texts that `T` can be parsed from. `allowed` describes them.
pub(super) fn text<T: FromStr + 'static>(allowed: &str) -> Setting<T> {
    text_that(allowed, |_| true)
}

/// Texts that `T` can be parsed from and whose value satisfies `holds`. `allowed` describes them.
pub(super) fn text_that<T: FromStr + 'static>(
    allowed: &str,
    holds: impl Fn(&T) -> bool + Send + Sync + 'static,
) -> Setting<T> {
    Setting::new(allowed, move |text| {
        text.trim()
            .parse()
            .ok()
            .filter(&holds)
            .ok_or("is not allowed")
    })
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Setting<T> {
    type Value = T;

    fn parse_ref(&self, _: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let wrong = match value.to_str() {
            Some("") => "is empty",
            Some(text) => match (self.read)(text) {
                Ok(value) => return Ok(value),
                Err(wrong) => wrong,
            },
            None => "is not UTF-8",
        };
        let variable = arg.map_or("", |arg| arg.get_id().as_str());
        let shown = if arg.is_none_or(Arg::is_hide_env_values_set) {
            String::new()
        } else {
            format!("={}", printable(&value.to_string_lossy()))
        };
        // clap prints this message verbatim, so it includes the end of the line.
        Err(Error::raw(
            ErrorKind::ValueValidation,
            format!("{variable}{shown} {wrong}: give {}\n", self.allowed),
        ))
    }
}

/// On one line, without control characters, and short enough for a sentence.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Properties that all settings share; applied to every group by `#[command(mut_args(common))]`.
///
/// An argument is a setting if its id is the name of its variable. clap treats an empty variable as a value, so a setting whose
/// variable is empty is detached from it; the help still shows the variable.
pub(super) fn common(arg: Arg) -> Arg {
    let Some(variable) = arg.get_env().and_then(OsStr::to_str).map(str::to_owned) else {
        return arg;
    };
    if arg.get_id() != variable.as_str() {
        return arg;
    }
    let arg = arg.value_name("VALUE").allow_negative_numbers(true);
    match std::env::var_os(&variable) {
        Some(value) if value.is_empty() => {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.env(None::<&str>)
                .help(format!("{help} [env: {variable}=]"))
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T: Clone + Send + Sync + 'static>(
        setting: Setting<T>,
        text: &str,
    ) -> Result<T, String> {
        let arg = Arg::new("NAME");
        setting
            .parse_ref(&Command::new("test"), Some(&arg), OsStr::new(text))
            .map_err(|error| error.to_string().trim_end().to_owned())
    }

    #[test]
    fn a_refusal_is_one_printable_line() {
        let refused = read(whole(0..=9u8), "1\n2\u{7}").unwrap_err();
        assert_eq!(
            refused,
            "error: NAME=1\\n2\\u{7} is not a whole number: give a whole number from 0 to 9"
        );
        let refused = read(whole(0..=9u8), &"7".repeat(500)).unwrap_err();
        assert!(refused.contains('…') && refused.len() < 160, "{refused}");
    }

    #[test]
    fn a_decimal_that_would_be_rounded_is_refused() {
        let thirty_digits = format!("99.{}", "9".repeat(28));
        let refused = read(decimal_above_zero(), &thirty_digits).unwrap_err();
        assert!(
            refused.contains("has more digits than can be kept exactly"),
            "{refused}"
        );
    }

    #[test]
    fn only_plain_notation_is_a_number() {
        for text in [
            "1_000", "1e3", "+1", ".5", "5.", "0x1", "1,5", "NaN", "--1", " 1", "١",
        ] {
            assert!(
                read(decimal_above_zero(), text).is_err(),
                "{text} was accepted"
            );
        }
    }

    proptest! {
        #[test]
        fn a_whole_number_is_read_exactly_when_it_is_in_range(number in -2000i64..2000, low in 0u16..500, width in 0u16..500) {
            let setting = whole(low..=low + width);
            let inside = (i64::from(low)..=i64::from(low + width)).contains(&number);
            match read(setting, &number.to_string()) {
                Ok(value) => prop_assert!(inside && i64::from(value) == number),
                Err(refused) => prop_assert!(!inside && refused.contains(OUT_OF_RANGE)),
            }
        }

        #[test]
        fn a_decimal_is_read_as_it_is_written(units in 1u64.., scale in 0u32..=18) {
            let written = Decimal::from_i128_with_scale(units.into(), scale);
            prop_assert_eq!(read(decimal_above_zero(), &written.to_string()).unwrap().to_string(), written.to_string());
        }

        #[test]
        fn no_text_panics_and_every_refusal_is_one_line(text in any::<String>()) {
            for refused in [read(whole(1..=5u32), &text).err(), read(decimal_above_zero(), &text).err()].into_iter().flatten() {
                prop_assert_eq!(refused.lines().count(), 1, "{}", refused);
            }
        }
    }
}
