//! Stored values as what they mean.

use std::str::FromStr;

use solana_sdk::signature::Signature;

use super::error::AuditError;
use crate::domain::MintTransactionState;

pub(super) fn signature(bytes: &[u8]) -> Result<Signature, AuditError> {
    Signature::try_from(bytes)
        .map_err(|_| unreadable("a signature of another length", &bytes.len()))
}

pub(super) fn state(text: &str) -> Result<MintTransactionState, AuditError> {
    MintTransactionState::from_str(text)
        .map_err(|_| unreadable("a mint transaction's state", &text))
}

pub(super) fn unreadable(what: &'static str, value: &dyn std::fmt::Display) -> AuditError {
    AuditError::Unreadable {
        what,
        value: value.to_string(),
    }
}
