//! The serial of a meter.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::excerpt::excerpt;

/// A meter's serial (`meter_id` of the API): 1 to 64 characters in Unicode normalization form C, each a letter, digit, punctuation
/// or symbol.
///
/// Two texts that look alike must be one meter, or its energy is paid twice. So composed and decomposed characters give the same
/// serial, and invisible characters are rejected. A combining mark is accepted only where it composes with its letter, because
/// marks that do not compose can be ordered and stacked arbitrarily.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterSerial(String);

/// A text that is not a serial.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SerialError {
    #[error("is empty; a meter's serial has 1 to 64 characters")]
    Empty,
    #[error("{text} is longer than 64 characters")]
    TooLong { text: String },
    #[error("{text} holds the character U+{:04X}; a meter's serial has letters, digits, punctuation and symbols only", u32::from(*.character))]
    Character { text: String, character: char },
}

impl MeterSerial {
    /// After normalization.
    pub const CHARACTERS_MAX: usize = 64;

    /// Normalizes the text, then validates it.
    pub fn parse(text: &str) -> Result<MeterSerial, SerialError> {
        // Lazily, so that a text of a megabyte costs no more than one of 65 characters.
        let serial: String = text.nfc().take(MeterSerial::CHARACTERS_MAX + 1).collect();
        if serial.is_empty() {
            return Err(SerialError::Empty);
        }
        if let Some(character) = serial.chars().find(|character| !is_visible(*character)) {
            return Err(SerialError::Character {
                text: excerpt(text),
                character,
            });
        }
        if serial.chars().count() > MeterSerial::CHARACTERS_MAX {
            return Err(SerialError::TooLong {
                text: excerpt(text),
            });
        }
        Ok(MeterSerial(serial))
    }

    /// From the database, where only validated serials are stored.
    pub fn from_stored(serial: String) -> MeterSerial {
        MeterSerial(serial)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The meter's place in a gradual roll-out, 0..=99, which never changes: its readings are minted automatically when it is
    /// below `TOKENIZATION_AUTO_MINT_PERCENTAGE`.
    pub fn rollout_bucket(&self) -> u8 {
        const BUCKETS: u64 = 100;
        let digest = Sha256::digest(self.0.as_bytes());
        let head = digest
            .iter()
            .take(8)
            .fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
        // Below 100.
        (head % BUCKETS) as u8
    }
}

fn is_visible(character: char) -> bool {
    match character.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => true,
        GeneralCategoryGroup::Mark
        | GeneralCategoryGroup::Separator
        | GeneralCategoryGroup::Other => false,
    }
}

impl AsRef<str> for MeterSerial {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MeterSerial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for MeterSerial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn composed_and_decomposed_characters_are_one_meter() {
        let composed = MeterSerial::parse("Z\u{e4}hler").unwrap();
        assert_eq!(MeterSerial::parse("Za\u{308}hler"), Ok(composed));
        // The Ångström sign normalizes to the letter Å.
        assert_eq!(MeterSerial::parse("\u{212b}").unwrap().as_str(), "\u{c5}");
    }

    #[test]
    fn letters_digits_punctuation_and_symbols_are_accepted() {
        for text in [
            "M1",
            "ausgrid-12-2012-07-01",
            "電力計#7",
            "№5/§2",
            "€+⚡",
            "Ⅻ²",
            "𝔐",
            "!",
        ] {
            assert_eq!(MeterSerial::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn invisible_characters_are_rejected() {
        for (text, character) in [
            ("a b", ' '),
            ("a\u{a0}b", '\u{a0}'),
            ("a\tb", '\t'),
            ("a\nb", '\n'),
            ("a\0b", '\0'),
            ("a\u{200b}b", '\u{200b}'),
            ("a\u{200d}b", '\u{200d}'),
            ("\u{202e}ab", '\u{202e}'),
            ("\u{feff}ab", '\u{feff}'),
            ("a\u{2028}b", '\u{2028}'),
            ("q\u{308}", '\u{308}'),
            ("\u{308}", '\u{308}'),
            ("\u{e000}", '\u{e000}'),
            ("\u{378}", '\u{378}'),
        ] {
            let error = MeterSerial::parse(text).unwrap_err();
            assert!(
                matches!(error, SerialError::Character { character: found, .. } if found == character),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn sixty_four_characters_after_normalization() {
        assert_eq!(MeterSerial::parse(""), Err(SerialError::Empty));
        assert!(MeterSerial::parse(&"⚡".repeat(64)).is_ok());
        assert!(matches!(
            MeterSerial::parse(&"x".repeat(65)),
            Err(SerialError::TooLong { .. })
        ));
        assert!(MeterSerial::parse(&"a\u{308}".repeat(64)).is_ok());
        assert!(matches!(
            MeterSerial::parse(&"a\u{308}".repeat(65)),
            Err(SerialError::TooLong { .. })
        ));
    }

    #[test]
    fn rollout_buckets_never_change() {
        let bucket = |text: &str| MeterSerial::parse(text).unwrap().rollout_bucket();
        assert_eq!([bucket("M1"), bucket("M2"), bucket("Zähler")], [33, 50, 83]);
        let mut meters = [0; 100];
        for number in 0..10_000 {
            meters[usize::from(bucket(&format!("meter-{number}")))] += 1;
        }
        assert!(
            meters.iter().all(|meters| (50..=150).contains(meters)),
            "{meters:?}"
        );
    }

    proptest! {
        #[test]
        fn parsing_a_serial_again_changes_nothing(text in any::<String>()) {
            if let Ok(serial) = MeterSerial::parse(&text) {
                prop_assert_eq!(MeterSerial::parse(serial.as_str()), Ok(serial.clone()));
                prop_assert!((1..=64).contains(&serial.as_str().chars().count()));
                prop_assert!(serial.as_str().len() <= 256);
            }
        }
    }
}
