//! Errors of chain queries. Their texts never hold an endpoint's URL.

use std::fmt;
use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::TransactionError;
use thiserror::Error;

use super::endpoints::limit_recognition::ProviderLimit;
use super::error_reason::{Lag, MintProblem, NoAnswer, UnusableAnswer};
use super::rpc_error_code;
use super::transaction_failure::TransactionFailure;

/// An answer that did not come, or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// No answer: connection, time-out, overload. Proves nothing about what the endpoint did.
    #[error("RPC endpoint {endpoint} did not answer {method}: {reason}")]
    Unreachable {
        endpoint: String,
        method: &'static str,
        reason: NoAnswer,
    },
    /// It answered 429 (now or before) and gets no calls for the time that it requested.
    #[error("RPC endpoint {endpoint} accepts no calls for {} s", wait.as_secs() + 1)]
    RateLimited { endpoint: String, wait: Duration },
    /// It answers, and lags.
    #[error("RPC endpoint {endpoint} is behind: {lag}")]
    Behind { endpoint: String, lag: Lag },
    /// None of the endpoints is usable, each for its reason; none at all when the list is empty.
    #[error("{}", describe(endpoints))]
    NoneUsable { endpoints: Vec<UnusableEndpoint> },
    /// No endpoint has reported yet what the chain charges.
    #[error("no RPC endpoint has reported yet what the chain charges")]
    ChargesUnknown,
    /// The endpoint answered with a JSON-RPC error.
    #[error("RPC endpoint {endpoint} answered {method} with {}: {message}", rpc_error_code::describe(*code))]
    ErrorResponse {
        endpoint: String,
        method: &'static str,
        code: i64,
        message: String,
    },
    /// The call met a limit of the endpoint's provider, other than one of the number of calls.
    #[error("RPC endpoint {endpoint} refuses {method}: {limit} ({answer})")]
    Limited {
        endpoint: String,
        method: &'static str,
        limit: ProviderLimit,
        answer: String,
    },
    /// The chain refused a transaction.
    #[error("the chain refused the transaction: {0}")]
    Refused(TransactionFailure),
    /// The account at the mint's address is not the mint that readings are paid with: no reading can be paid.
    #[error("the mint {mint} {problem}")]
    MintUnknown { mint: Pubkey, problem: MintProblem },
    /// The answer contradicts itself or the request.
    #[error("RPC endpoint {endpoint} gave an answer that cannot be used: {reason}")]
    Unusable {
        endpoint: String,
        reason: UnusableAnswer,
    },
}

/// An endpoint that is not queried, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnusableEndpoint {
    RateLimited { endpoint: String, wait: Duration },
    Failed(ProbeFailure),
    NotProbed { endpoint: String },
}

/// Why an endpoint counts as failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeFailure {
    /// The last probe failed.
    #[error(transparent)]
    NoHeight(Box<ChainError>),
    /// A call failed after the last probe.
    #[error(transparent)]
    CallFailed(Box<ChainError>),
}

impl fmt::Display for UnusableEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnusableEndpoint::RateLimited { endpoint, wait } => {
                write!(
                    f,
                    "{endpoint} accepts no calls for {} s",
                    wait.as_secs() + 1
                )
            }
            UnusableEndpoint::Failed(failure) => failure.fmt(f),
            UnusableEndpoint::NotProbed { endpoint } => {
                write!(f, "{endpoint} has not been probed")
            }
        }
    }
}

fn describe(endpoints: &[UnusableEndpoint]) -> String {
    if endpoints.is_empty() {
        return "no RPC endpoint is configured".to_owned();
    }
    let reasons: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    format!("no RPC endpoint answers: {}", reasons.join("; "))
}

/// Origin of a failure to use the chain. None of these uses an attempt of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureOrigin {
    /// This endpoint: network, overload, lag, an answer that cannot be used. Another endpoint may succeed, or this one later.
    Endpoint,
    /// The moment: the blockhash is too old or not known yet, an account is busy. The next attempt may succeed.
    Timing,
    /// The fee payer is empty: no reading can be paid until an operator acts.
    FeePayer,
    /// The mint is unknown, or this service may not mint it: no reading can be paid until an operator acts.
    Mint,
    /// The transaction itself: it was refused for none of these.
    Transaction,
}

impl ChainError {
    pub fn origin(&self) -> FailureOrigin {
        match self {
            ChainError::Unreachable { .. }
            | ChainError::RateLimited { .. }
            | ChainError::Behind { .. }
            | ChainError::NoneUsable { .. }
            | ChainError::ChargesUnknown
            | ChainError::ErrorResponse { .. }
            | ChainError::Limited { .. }
            | ChainError::Unusable { .. } => FailureOrigin::Endpoint,
            ChainError::MintUnknown { .. } => FailureOrigin::Mint,
            ChainError::Refused(TransactionFailure::Unnamed { .. }) => FailureOrigin::Transaction,
            ChainError::Refused(TransactionFailure::Named(error)) => match error {
                TransactionError::BlockhashNotFound
                | TransactionError::AccountInUse
                | TransactionError::ClusterMaintenance
                | TransactionError::WouldExceedMaxBlockCostLimit
                | TransactionError::WouldExceedMaxAccountCostLimit
                | TransactionError::WouldExceedMaxVoteCostLimit
                | TransactionError::WouldExceedAccountDataBlockLimit => FailureOrigin::Timing,
                // The fee payer comes first among a transaction's accounts.
                TransactionError::InsufficientFundsForFee
                | TransactionError::AccountNotFound
                | TransactionError::InvalidAccountForFee
                | TransactionError::InsufficientFundsForRent { account_index: 0 } => {
                    FailureOrigin::FeePayer
                }
                _ => FailureOrigin::Transaction,
            },
        }
    }

    /// Whether the endpoint itself is the fault, so that it gets no calls until a probe finds it healthy: it did not answer, or is
    /// not where it should be. A strange answer or a limit concerns one call, and says nothing about the others.
    pub fn is_of_endpoint(&self) -> bool {
        match self {
            ChainError::Unreachable { .. } | ChainError::Behind { .. } => true,
            ChainError::Unusable { reason, .. } => {
                matches!(reason, UnusableAnswer::OtherChain { .. })
            }
            ChainError::Limited { limit, .. } => *limit == ProviderLimit::Access,
            ChainError::RateLimited { .. }
            | ChainError::NoneUsable { .. }
            | ChainError::ErrorResponse { .. }
            | ChainError::Refused(_)
            | ChainError::MintUnknown { .. }
            | ChainError::ChargesUnknown => false,
        }
    }

    /// Whether the same signed bytes are known to have landed already.
    pub fn is_already_processed(&self) -> bool {
        matches!(
            self,
            ChainError::Refused(TransactionFailure::Named(
                TransactionError::AlreadyProcessed
            ))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_an_origin_and_it_is_never_a_reading() {
        let unreachable = ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "getSlot",
            reason: NoAnswer::TimedOut,
        };
        assert_eq!(unreachable.origin(), FailureOrigin::Endpoint);
        for (error, origin) in [
            (TransactionError::BlockhashNotFound, FailureOrigin::Timing),
            (TransactionError::AccountInUse, FailureOrigin::Timing),
            (
                TransactionError::InsufficientFundsForFee,
                FailureOrigin::FeePayer,
            ),
            (TransactionError::AccountNotFound, FailureOrigin::FeePayer),
            (
                TransactionError::InsufficientFundsForRent { account_index: 0 },
                FailureOrigin::FeePayer,
            ),
            (
                TransactionError::InsufficientFundsForRent { account_index: 3 },
                FailureOrigin::Transaction,
            ),
            (
                TransactionError::SignatureFailure,
                FailureOrigin::Transaction,
            ),
        ] {
            assert_eq!(ChainError::Refused(error.into()).origin(), origin);
        }
    }

    #[test]
    fn each_endpoint_that_is_not_usable_is_named_with_its_reason() {
        let endpoints = vec![
            UnusableEndpoint::RateLimited {
                endpoint: "rpc-1".to_owned(),
                wait: Duration::from_millis(6_500),
            },
            UnusableEndpoint::NotProbed {
                endpoint: "rpc-2".to_owned(),
            },
        ];
        assert_eq!(
            ChainError::NoneUsable { endpoints }.to_string(),
            "no RPC endpoint answers: rpc-1 accepts no calls for 7 s; rpc-2 has not been probed"
        );
    }
}
