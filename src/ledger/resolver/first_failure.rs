//! Keeps a round going past an item that fails: the first failure is the round's result.

use crate::chain::ChainError;
use crate::db::ErrorClass;
use crate::ledger::error::LedgerError;

#[derive(Debug, Default)]
pub struct FirstFailure(Option<LedgerError>);

/// Whether the rest of a round is worth trying.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Continues,
    /// The database is away: every other item would wait for it in turn.
    IsGivenUp,
}

impl FirstFailure {
    pub fn note(&mut self, outcome: Result<(), LedgerError>) -> Rest {
        let Err(error) = outcome else {
            return Rest::Continues;
        };
        let rest = match &error {
            LedgerError::Database(error) if ErrorClass::of(error) == ErrorClass::Unavailable => {
                Rest::IsGivenUp
            }
            LedgerError::Database(_) | LedgerError::Chain(_) | LedgerError::Unreadable { .. } => {
                Rest::Continues
            }
        };
        self.0.get_or_insert(error);
        rest
    }

    pub fn into_result(self) -> Result<(), LedgerError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// Whether the next question to the chain would fail for the same reason, after the same wait.
pub fn no_endpoint_answers(error: &LedgerError) -> bool {
    matches!(
        error,
        LedgerError::Chain(
            ChainError::Unreachable { .. }
                | ChainError::RateLimited { .. }
                | ChainError::NoneUsable { .. }
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_endpoint() -> LedgerError {
        let endpoints = Vec::new();
        ChainError::NoneUsable { endpoints }.into()
    }

    #[test]
    fn the_first_failure_is_kept_and_only_an_absent_database_ends_the_round() {
        let mut failures = FirstFailure::default();
        assert_eq!(failures.note(Ok(())), Rest::Continues);
        assert_eq!(failures.note(Err(no_endpoint())), Rest::Continues);
        let away = LedgerError::Database(sqlx::Error::PoolTimedOut);
        assert_eq!(failures.note(Err(away)), Rest::IsGivenUp);
        let first = failures.into_result().unwrap_err();
        assert_eq!(first.to_string(), no_endpoint().to_string());
        assert!(FirstFailure::default().into_result().is_ok());
    }
}
