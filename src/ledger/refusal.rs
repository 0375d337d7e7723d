//! Names the reason for which a reading cannot be paid as it is, and the outcome for the reading.

use chrono::{DateTime, Utc};
use solana_sdk::pubkey::Pubkey;
use thiserror::Error;
use uuid::Uuid;

use crate::chain::{AccountProblem, TransactionFailure};
use crate::domain::{BaseUnits, Wallet};

/// A reading that cannot be paid as it is.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reading: Uuid,
    pub reason: RefusalReason,
}

/// The reason for the refusal, as its owner and admins read it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RefusalReason {
    #[error(
        "the token account {account} of wallet {wallet} {problem}; recreate the account, then retry"
    )]
    TokenAccount {
        account: Pubkey,
        wallet: Wallet,
        problem: AccountProblem,
    },
    /// The limit was lowered after the reading was accepted.
    #[error(
        "its {base_units} base units are above BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION={limit}; raise it, then retry"
    )]
    AboveTransactionLimit {
        base_units: BaseUnits,
        limit: BaseUnits,
    },
    #[error("simulation refused its payment: {0}")]
    Simulation(TransactionFailure),
    #[error("failed on chain: {0}")]
    FailedOnChain(TransactionFailure),
}

impl RefusalReason {
    /// Whether only a person can help: another attempt would end the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            RefusalReason::TokenAccount { .. } | RefusalReason::AboveTransactionLimit { .. } => {
                true
            }
            RefusalReason::Simulation(_) | RefusalReason::FailedOnChain(_) => false,
        }
    }
}

/// The outcome for a refused reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRefusal {
    /// It is retried at this time.
    RetryAt(DateTime<Utc>),
    /// `failed`: an admin can retry it.
    Failed,
    /// It is no longer `pending`, or its revision rose since the caller read it: nothing was changed.
    Superseded,
}
