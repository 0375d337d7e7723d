//! Names the reason for which a reading cannot be paid as it is, and the outcome for the reading.

use std::fmt;

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
    #[error("simulation refused its payment to {payee}: {error}")]
    Simulation {
        payee: Payee,
        error: TransactionFailure,
    },
    #[error("failed on chain: its payment to {payee}: {error}")]
    FailedOnChain {
        payee: Payee,
        error: TransactionFailure,
    },
}

/// The token account that a reading is paid to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payee {
    pub wallet: Wallet,
    pub account: Pubkey,
}

impl Payee {
    pub fn of(wallet: Wallet, mint: &Pubkey) -> Payee {
        Payee {
            wallet,
            account: wallet.token_account(mint),
        }
    }
}

impl fmt::Display for Payee {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            text,
            "the token account {} of wallet {}",
            self.account, self.wallet
        )
    }
}

impl RefusalReason {
    /// Whether only a person can help: another attempt would end the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            RefusalReason::TokenAccount { .. } | RefusalReason::AboveTransactionLimit { .. } => {
                true
            }
            RefusalReason::Simulation { .. } | RefusalReason::FailedOnChain { .. } => false,
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
