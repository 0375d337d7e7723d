//! The reasons for which an admin's action is refused.

use thiserror::Error;

use crate::ledger::{ResolveError, RetryError};
use crate::meters::MeterError;

/// Nothing was changed and nothing was logged.
#[derive(Debug, Error)]
pub enum AdminError {
    #[error("reason {0}")]
    Reason(ReasonError),
    /// The new wallet cannot be paid, or the chain could not be queried about it.
    #[error(transparent)]
    Wallet(#[from] MeterError),
    #[error(transparent)]
    Retry(#[from] RetryError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// A reason that is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("has {characters} characters; say in 1 to {REASON_CHARACTERS_MAX} why this is done")]
pub struct ReasonError {
    characters: usize,
}

/// Longest reason of an action, characters.
pub const REASON_CHARACTERS_MAX: usize = 500;

/// The reason as it is logged: trimmed, with a length within the limit.
pub(super) fn parse_reason(text: &str) -> Result<String, AdminError> {
    let text = text.trim();
    let characters = text.chars().count();
    if (1..=REASON_CHARACTERS_MAX).contains(&characters) {
        Ok(text.to_owned())
    } else {
        Err(AdminError::Reason(ReasonError { characters }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_neither_empty_nor_too_long() {
        assert_eq!(parse_reason(" new wallet\n").unwrap(), "new wallet");
        assert_eq!(parse_reason(&"ö".repeat(500)).unwrap().len(), 1_000);
        for (text, characters) in [("", 0), (" \n", 0), ("x".repeat(501).as_str(), 501)] {
            assert_eq!(
                parse_reason(text).unwrap_err().to_string(),
                format!("reason has {characters} characters; say in 1 to 500 why this is done")
            );
        }
    }
}
