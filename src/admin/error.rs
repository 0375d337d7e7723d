//! Why an admin's action is not done.

use thiserror::Error;

use crate::ledger::{ResolveError, RetryError};
use crate::meters::MeterError;

/// Nothing was changed, and nothing logged.
#[derive(Debug, Error)]
pub enum AdminError {
    #[error("reason {0}")]
    Reason(ReasonError),
    /// The new wallet is none, or whether it is one could not be asked.
    #[error(transparent)]
    Wallet(#[from] MeterError),
    #[error(transparent)]
    Retry(#[from] RetryError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// A reason that says nothing, or too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("has {characters} characters; say in 1 to {REASON_CHARACTERS_MAX} why this is done")]
pub struct ReasonError {
    characters: usize,
}

/// Longest reason of an action, characters.
pub const REASON_CHARACTERS_MAX: usize = 500;

/// The reason as it is logged, without white space around it.
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
    fn a_reason_says_something_and_not_too_much() {
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
