//! Reasons for which a pending reading is not minted now, although the reading itself is fine.

use std::sync::Arc;
use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use thiserror::Error;

use super::transaction::SignError;
use crate::chain::{Cause, ChainError};
use crate::domain::Wallet;
use crate::ledger::{LedgerError, RecordError, WaitingReason};

/// The text goes to logs, to the reading's `last_error` and to the batch's report. None of these uses an attempt. Readings
/// of one batch share a reason, so sources are counted references.
#[derive(Clone, Debug, Error)]
pub enum DeferReason {
    #[error("{0}")]
    CircuitBreakerOpen(Cause),
    /// The ledger lets nothing be signed, or did not record the transaction.
    #[error("{0}")]
    NotRecorded(#[source] Arc<RecordError>),
    #[error("{0}")]
    NotSigned(#[source] Arc<SignError>),
    #[error("{0}")]
    Ledger(#[source] Arc<LedgerError>),
    #[error("{0}")]
    Database(#[source] Arc<sqlx::Error>),
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Only a database that was changed by hand holds such a row.
    #[error("the stored reading cannot be read: {0}")]
    UnreadableRow(#[source] Arc<sqlx::Error>),
    /// The token account is unusable in one answer, and that is not final.
    #[error(
        "the token account {account} of wallet {wallet} has changed, or RPC endpoint {endpoint} is behind: waiting for finality"
    )]
    AccountNotFinal {
        account: Pubkey,
        wallet: Wallet,
        endpoint: String,
    },
    /// The token account is missing, and an earlier payment creates it or found it there.
    #[error(
        "the token account {account} of wallet {wallet} is missing while an earlier payment to it is not final: waiting for finality"
    )]
    AccountUnsettled { account: Pubkey, wallet: Wallet },
    #[error("the refusal could not be stored: {0}")]
    RefusalNotStored(Box<DeferReason>),
    #[error("the fee payer's balance covers no further fee: it waits for a top-up")]
    NoFee,
    /// The reading's row says so, too.
    #[error("{0}")]
    Waiting(#[from] WaitingReason),
    #[error("its transaction kept changing while it was packed")]
    KeptChanging,
    #[error("more readings wait than the minter takes")]
    QueueFull,
    #[error("this process is shutting down")]
    ShuttingDown,
    #[error("the minter is closed")]
    MinterClosed,
    #[error("the minter did not answer within {} s", .0.as_secs())]
    MinterTimeout(Duration),
    /// The batch panicked.
    #[error("the batch was lost by a defect")]
    BatchLost,
    #[error("the batch gave no answer")]
    NoAnswer,
}

macro_rules! from_source {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for DeferReason {
            fn from(error: $source) -> DeferReason {
                DeferReason::$variant(Arc::new(error))
            }
        }
    )*};
}

from_source! {
    RecordError => NotRecorded,
    SignError => NotSigned,
    LedgerError => Ledger,
    sqlx::Error => Database,
}
