//! Encodes and decodes signed transactions as they travel: the only place in this program that does.
//!
//! Invariant: the bytes are those that a node takes, for every version up to
//! [`NEWEST_TRANSACTION_VERSION`](super::NEWEST_TRANSACTION_VERSION), and bytes that cannot be decoded as a whole are an error,
//! never a transaction. `bincode` must not be used: it encodes a v1 transaction without an error and wrongly, with the signatures
//! in front of the message instead of behind it.

use solana_sdk::message::MESSAGE_VERSION_PREFIX;
use solana_sdk::transaction::VersionedTransaction;
use thiserror::Error;

use super::transaction_format::TransactionFormat;

/// A transaction that no node takes, or bytes that are not a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidTransaction {
    #[error("it breaks the rules of its format")]
    Rules,
    #[error("it cannot be encoded")]
    Encoding,
    #[error("the bytes are not a transaction of a version that this program reads")]
    NoTransaction,
}

/// The format of the mint transaction whose bytes begin so: one byte decides.
pub fn format_of(bytes: &[u8]) -> TransactionFormat {
    match bytes.first() {
        // A legacy transaction begins with the number of its signatures, which is far below.
        Some(first) if first & MESSAGE_VERSION_PREFIX != 0 => TransactionFormat::V1,
        _ => TransactionFormat::Legacy,
    }
}

/// The bytes of a signed transaction.
pub fn encode(transaction: &VersionedTransaction) -> Result<Vec<u8>, InvalidTransaction> {
    transaction
        .sanitize()
        .map_err(|_| InvalidTransaction::Rules)?;
    wincode::serialize(transaction).map_err(|_| InvalidTransaction::Encoding)
}

/// The transaction that the bytes are, all of them.
pub fn decode(bytes: &[u8]) -> Result<VersionedTransaction, InvalidTransaction> {
    let transaction: VersionedTransaction =
        wincode::deserialize_exact(bytes).map_err(|_| InvalidTransaction::NoTransaction)?;
    transaction
        .sanitize()
        .map_err(|_| InvalidTransaction::Rules)?;
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use solana_sdk::hash::Hash;
    use solana_sdk::message::{Message, VersionedMessage, v0, v1};
    use solana_sdk::pubkey::Pubkey;
    use solana_sdk::signature::{Keypair, Signer as _};

    use super::*;

    fn message(version: Option<u8>, payer: &Pubkey) -> VersionedMessage {
        let memo = spl_memo_interface::instruction::build_memo(
            &spl_memo_interface::v3::ID,
            b"a memo",
            &[],
        );
        let hash = Hash::new_unique();
        match version {
            None => {
                let message = Message::new_with_blockhash(&[memo], Some(payer), &hash);
                VersionedMessage::Legacy(message)
            }
            Some(0) => {
                VersionedMessage::V0(v0::Message::try_compile(payer, &[memo], &[], hash).unwrap())
            }
            Some(_) => {
                VersionedMessage::V1(v1::Message::try_compile(payer, &[memo], hash).unwrap())
            }
        }
    }

    fn signed(version: Option<u8>) -> VersionedTransaction {
        let key = Keypair::new();
        VersionedTransaction::try_new(message(version, &key.pubkey()), &[&key]).unwrap()
    }

    #[test]
    fn every_version_survives_and_its_signature_stays_valid() {
        for version in [None, Some(0), Some(1)] {
            let transaction = signed(version);
            let bytes = encode(&transaction).unwrap();
            assert_eq!(decode(&bytes), Ok(transaction.clone()));
            assert_eq!(transaction.verify_with_results(), [true]);
        }
    }

    /// A v1 transaction begins with its version, and its signatures are the last bytes.
    #[test]
    fn the_bytes_of_v1_are_those_of_the_standard() {
        let transaction = signed(Some(1));
        let bytes = encode(&transaction).unwrap();
        assert_eq!(bytes[0], 0x81);
        assert_eq!(format_of(&bytes), TransactionFormat::V1);
        let (message, signatures) = bytes.split_at(bytes.len() - 64);
        assert_eq!(message, transaction.message.serialize());
        assert_eq!(signatures, transaction.signatures[0].as_ref());
        assert_ne!(bytes, bincode::serialize(&transaction).unwrap());
    }

    /// The ledger holds bytes that `bincode` wrote before: for these versions they are the same.
    #[test]
    fn older_versions_are_encoded_as_before() {
        for version in [None, Some(0)] {
            let transaction = signed(version);
            let before = bincode::serialize(&transaction).unwrap();
            assert_eq!(encode(&transaction), Ok(before));
            assert_eq!(
                format_of(&encode(&transaction).unwrap()),
                TransactionFormat::Legacy
            );
        }
    }

    #[test]
    fn a_transaction_that_breaks_the_rules_is_not_encoded() {
        let mut unsigned = signed(Some(1));
        unsigned.signatures.clear();
        assert_eq!(encode(&unsigned), Err(InvalidTransaction::Rules));
    }

    proptest! {
        #[test]
        fn cut_or_lengthened_bytes_are_no_transaction(cut in 1_usize..100, version in 0_u8..3) {
            let bytes = encode(&signed(version.checked_sub(1))).unwrap();
            let shorter = &bytes[..bytes.len() - cut];
            prop_assert!(decode(shorter).is_err());
            let longer = [bytes, vec![0; cut]].concat();
            prop_assert!(decode(&longer).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), first in prop::sample::select(vec![0x01_u8, 0x80, 0x81, 0xff])) {
            let _ = decode(&bytes);
            let _ = decode(&[vec![first], bytes].concat());
        }
    }
}
