//! Errors that keep an audit from being finished. They say nothing about the ledger.

use thiserror::Error;

use crate::chain::ChainError;
use crate::ledger::BindingError;

/// Neither "ok" nor a difference: the audit must be run again.
#[derive(Debug, Error)]
pub enum AuditError {
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error("the database failed: {0}")]
    Database(sqlx::Error),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "the ledger belongs to the chain with genesis hash {ledger}, the RPC endpoint is on {endpoint}"
    )]
    OtherChain { ledger: String, endpoint: String },
    #[error("SOLANA_MINT_ADDRESS is {requested}, but this ledger mints {ledger}")]
    OtherMint { requested: String, ledger: String },
    /// The part of the history that is no longer available may contain mints that the ledger lacks.
    #[error(
        "no RPC endpoint that answers shows the history of the mint {mint} from its creation on (not {endpoints}), so nothing \
         can be proven: add one with full history to SOLANA_RPC_URL"
    )]
    NoBeginning { mint: String, endpoints: String },
    #[error(
        "no RPC endpoint that answers has the history above slot {slot}, up to which the last audit compared it (not {endpoints}): \
         add one that has, or run a full audit on one with full history"
    )]
    NoRecentHistory { slot: u64, endpoints: String },
    /// "Not found" proves nothing on a node that no longer has that slot.
    #[error(
        "no RPC endpoint has history back to slot {slot}, in which transaction {signature} landed: add one that has"
    )]
    NoHistory { signature: String, slot: u64 },
    #[error("the ledger contains a value that cannot be read, in column {column}: {reason}")]
    Unreadable { column: String, reason: String },
    #[error(
        "another recorded audit ran at the same time and has changed the checkpoints: run this one again"
    )]
    Overtaken,
    #[error("the chain did not go beyond slot {slot} within {limit_secs} s")]
    Standstill { slot: u64, limit_secs: u64 },
}

impl From<sqlx::Error> for AuditError {
    fn from(error: sqlx::Error) -> AuditError {
        match error {
            sqlx::Error::ColumnDecode { index, source } => AuditError::Unreadable {
                column: index,
                reason: source.to_string(),
            },
            error => AuditError::Database(error),
        }
    }
}
