//! The signature of a transaction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use solana_sdk::signature::Signature;
use thiserror::Error;

use super::excerpt::excerpt;

/// The first signature of a transaction, which is its name on chain: 64 bytes, written in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxSignature(Signature);

/// A text that is not a signature.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text} is not a transaction's signature: 64 bytes in base58")]
pub struct TxSignatureError {
    text: String,
}

impl TxSignature {
    pub const BYTES: usize = 64;

    pub fn from_bytes(bytes: [u8; TxSignature::BYTES]) -> TxSignature {
        TxSignature(Signature::from(bytes))
    }

    pub fn bytes(&self) -> [u8; TxSignature::BYTES] {
        self.0.into()
    }

    /// As Solana's libraries represent it.
    pub fn signature(&self) -> Signature {
        self.0
    }
}

impl From<Signature> for TxSignature {
    fn from(signature: Signature) -> TxSignature {
        TxSignature(signature)
    }
}

impl From<TxSignature> for Signature {
    fn from(signature: TxSignature) -> Signature {
        signature.0
    }
}

impl FromStr for TxSignature {
    type Err = TxSignatureError;

    fn from_str(text: &str) -> Result<TxSignature, TxSignatureError> {
        text.parse().map(TxSignature).map_err(|_| TxSignatureError {
            text: excerpt(text),
        })
    }
}

/// Base58.
impl fmt::Display for TxSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Base58: a list of 64 numbers would be unreadable.
impl fmt::Debug for TxSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for TxSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TxSignature, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_json_and_bytes_give_the_signature_back() {
        let signature = TxSignature::from(Signature::new_unique());
        assert_eq!(signature.to_string().parse(), Ok(signature));
        assert_eq!(TxSignature::from_bytes(signature.bytes()), signature);
        assert_eq!(format!("{signature:?}"), signature.to_string());
        let json = serde_json::to_string(&signature).unwrap();
        assert_eq!(json, format!("\"{signature}\""));
        assert_eq!(
            serde_json::from_str::<TxSignature>(&json).unwrap(),
            signature
        );
    }

    #[test]
    fn what_is_not_64_bytes_of_base58_is_refused() {
        for text in ["", "1", "0OIl", &"1".repeat(65), &"z".repeat(1_000)] {
            assert!(text.parse::<TxSignature>().is_err(), "{text:?}");
        }
        assert_eq!(
            "?".parse::<TxSignature>().unwrap_err().to_string(),
            "? is not a transaction's signature: 64 bytes in base58"
        );
    }
}
