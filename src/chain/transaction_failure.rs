//! The error with which a transaction failed, read leniently: a cluster may know errors that the client crate cannot name.
//!
//! Invariant: any value in the error field means that the transaction failed, and so does not pay. One error that
//! cannot be named never makes an answer unreadable that reports others beside it.

use std::fmt;

use serde_json::Value;
use solana_sdk::instruction::InstructionError;
use solana_sdk::transaction::TransactionError;

/// Characters of an unnamed error that are kept: it is a name and some numbers.
const TEXT_CHARACTERS_MAX: usize = 200;

/// The error with which a transaction failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionFailure {
    Named(TransactionError),
    /// An error of a newer cluster.
    Unnamed {
        /// The instruction that failed, if it says so.
        instruction: Option<u8>,
        /// As the endpoint wrote it, shortened.
        text: String,
    },
}

impl TransactionFailure {
    /// Reads the member `err` of a status, a listed transaction, a simulation or a transaction's metadata. `None`: no error.
    pub fn read(err: &Value) -> Option<TransactionFailure> {
        if err.is_null() {
            return None;
        }
        if let Ok(error) = serde_json::from_value(err.clone()) {
            return Some(TransactionFailure::Named(error));
        }
        let instruction = err["InstructionError"][0].as_u64();
        Some(TransactionFailure::Unnamed {
            instruction: instruction.and_then(|index| u8::try_from(index).ok()),
            text: err.to_string().chars().take(TEXT_CHARACTERS_MAX).collect(),
        })
    }

    /// The instruction that failed, and why as far as it can be named. `None`: the error concerns the whole transaction, or
    /// nothing is known of it.
    pub fn instruction(&self) -> Option<(u8, Option<&InstructionError>)> {
        match self {
            TransactionFailure::Named(TransactionError::InstructionError(index, cause)) => {
                Some((*index, Some(cause)))
            }
            TransactionFailure::Named(_) => None,
            TransactionFailure::Unnamed { instruction, .. } => {
                instruction.map(|index| (index, None))
            }
        }
    }

    pub fn named(&self) -> Option<&TransactionError> {
        match self {
            TransactionFailure::Named(error) => Some(error),
            TransactionFailure::Unnamed { .. } => None,
        }
    }
}

impl From<TransactionError> for TransactionFailure {
    fn from(error: TransactionError) -> TransactionFailure {
        TransactionFailure::Named(error)
    }
}

impl fmt::Display for TransactionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransactionFailure::Named(error) => error.fmt(f),
            TransactionFailure::Unnamed { text, .. } => {
                write!(f, "{text}, an error that this version cannot name")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_named_where_it_can_be_and_kept_as_text_where_not() {
        assert_eq!(TransactionFailure::read(&Value::Null), None);
        let named = TransactionFailure::read(&json!({"InstructionError": [2, {"Custom": 17}]}));
        let expected = TransactionError::InstructionError(2, InstructionError::Custom(17));
        assert_eq!(named, Some(expected.into()));
        for (err, instruction) in [
            (
                json!({"InstructionError": [0, {"BorshIoError": "Unknown"}]}),
                Some(0),
            ),
            (json!({"InstructionError": [1, "ErrorOf2028"]}), Some(1)),
            (
                json!({"InstructionError": [300, {"Custom": 4_294_967_296_u64}]}),
                None,
            ),
            (json!("ErrorOf2028"), None),
            (json!(["?"]), None),
        ] {
            let failure = TransactionFailure::read(&err).unwrap();
            if let TransactionFailure::Named(error) = &failure {
                // The crate has learnt it: then it is named, with the same instruction.
                let TransactionError::InstructionError(index, _) = error else {
                    panic!("{error:?}");
                };
                assert_eq!(Some(*index), instruction, "{err}");
                continue;
            }
            assert_eq!(failure.instruction().map(|(index, _)| index), instruction);
            assert!(
                failure.to_string().starts_with(&err.to_string()),
                "{failure}"
            );
        }
    }

    proptest! {
        /// Whatever it is but null: the transaction failed, and the text stays short.
        #[test]
        fn anything_but_null_is_a_failure(text in ".{0,400}", number in any::<u64>()) {
            for err in [json!(text), json!({&text: [number, text]}), json!(number), json!([]), json!(false)] {
                let failure = TransactionFailure::read(&err);
                prop_assert!(failure.is_some());
                prop_assert!(failure.unwrap().to_string().chars().count() < 2 * TEXT_CHARACTERS_MAX);
            }
        }
    }
}
