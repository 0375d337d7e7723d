//! What a meter is called.

use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::excerpt::excerpt;

/// A meter's serial (`meter_id` of the API): 1 to 64 characters in normalisation form C, of which each is a letter, digit,
/// punctuation or symbol.
///
/// Two texts that look alike must be one meter, or its energy is paid twice: so composed and decomposed writing are the
/// same serial, and nothing that cannot be seen belongs to one. A combining mark is taken only where it composes with its
/// letter, because marks that stay apart may be ordered and stacked at will.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeterSerial(String);

/// Why a text is no serial.
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
    /// After normalisation.
    pub const CHARACTERS_MAX: usize = 64;

    /// Normalises, then judges.
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

    /// From our own books, where it was judged before it was written.
    pub fn from_stored(serial: String) -> MeterSerial {
        MeterSerial(serial)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The meter's place in a gradual roll-out, 0..=99, the same for ever: minted automatically when it is below
    /// `TOKENIZATION_AUTO_MINT_PERCENTAGE`.
    pub fn rollout_bucket(&self) -> u8 {
        const BUCKETS: u64 = 100;
        let digest = Sha256::digest(self.0.as_bytes());
        let head = digest
            .iter()
            .take(8)
            .fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
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
