//! The number of a mint transaction.

use std::fmt;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The number of a mint transaction in the ledger: below 2^48, enough for 8,900 years at a thousand a second. The memo carries
/// it in 6 bytes, so chain and ledger name the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MintNumber(u64);

/// A number that no mint transaction can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} is not the number of a mint transaction: a whole number below 2^48")]
pub struct MintNumberError(i128);

impl MintNumber {
    /// Of its big-endian form.
    pub const BYTES: usize = 6;
    pub const MAX: MintNumber = MintNumber((1 << 48) - 1);

    pub const fn get(self) -> u64 {
        self.0
    }

    /// Big-endian.
    pub fn to_bytes(self) -> [u8; MintNumber::BYTES] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    pub fn from_bytes(bytes: [u8; MintNumber::BYTES]) -> MintNumber {
        let [a, b, c, d, e, f] = bytes;
        MintNumber(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The number that comes after this one; `None` after [`MAX`](Self::MAX).
    pub fn next(self) -> Option<MintNumber> {
        MintNumber::try_from(self.0 + 1).ok()
    }
}

impl TryFrom<u64> for MintNumber {
    type Error = MintNumberError;

    fn try_from(number: u64) -> Result<MintNumber, MintNumberError> {
        if number > MintNumber::MAX.0 {
            return Err(MintNumberError(number.into()));
        }
        Ok(MintNumber(number))
    }
}

/// From a BIGINT column.
impl TryFrom<i64> for MintNumber {
    type Error = MintNumberError;

    fn try_from(number: i64) -> Result<MintNumber, MintNumberError> {
        u64::try_from(number)
            .map_err(|_| MintNumberError(number.into()))
            .and_then(MintNumber::try_from)
    }
}

/// For a BIGINT column.
impl From<MintNumber> for i64 {
    fn from(number: MintNumber) -> i64 {
        // Below 2^48.
        number.0.cast_signed()
    }
}

impl From<MintNumber> for u64 {
    fn from(number: MintNumber) -> u64 {
        number.0
    }
}

impl fmt::Display for MintNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// As a JSON number: it stays below 2^53, where JavaScript's numbers end.
impl Serialize for MintNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_48_bits() {
        assert_eq!(MintNumber::try_from(0_u64).unwrap().get(), 0);
        assert_eq!(MintNumber::try_from((1_u64 << 48) - 1), Ok(MintNumber::MAX));
        assert!(MintNumber::try_from(1_u64 << 48).is_err());
        assert!(MintNumber::try_from(u64::MAX).is_err());
        assert_eq!(
            MintNumber::try_from(-1_i64).unwrap_err().to_string(),
            "-1 is not the number of a mint transaction: a whole number below 2^48"
        );
        assert_eq!(MintNumber::MAX.next(), None);
    }

    #[test]
    fn bytes_are_big_endian() {
        let number = MintNumber::try_from(258_u64).unwrap();
        assert_eq!(number.to_bytes(), [0, 0, 0, 0, 1, 2]);
        assert_eq!(number.next().unwrap().to_bytes(), [0, 0, 0, 0, 1, 3]);
    }

    proptest! {
        #[test]
        fn every_form_gives_the_number_back(raw in 0_u64..1 << 48) {
            let number = MintNumber::try_from(raw).unwrap();
            prop_assert_eq!(number.get(), raw);
            prop_assert_eq!(MintNumber::from_bytes(number.to_bytes()), number);
            prop_assert_eq!(MintNumber::try_from(i64::from(number)), Ok(number));
            prop_assert_eq!(serde_json::to_string(&number).unwrap(), number.to_string());
        }
    }
}
