//! Errors of reading and writing the ledger.

use thiserror::Error;

use crate::chain::ChainError;

/// Every failure leaves the ledger as it was, except [`RecordError::Unknown`](super::RecordError).
#[derive(Debug, Error)]
pub enum LedgerError {
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the ledger holds {what} that this version cannot read: {value}")]
    Unreadable { what: &'static str, value: String },
}
