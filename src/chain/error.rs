//! What can go wrong when the chain is asked, in words that never hold an endpoint's URL.

use std::time::Duration;

use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED, JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY,
};
use solana_client::rpc_request::{RpcError, RpcResponseErrorData};
use solana_sdk::transaction::TransactionError;
use thiserror::Error;

use super::sender;

/// An answer that did not come, or was no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// No answer: connection, time-out, overload. Says nothing about what the endpoint did.
    #[error("RPC endpoint {endpoint} did not answer: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// It answered 429 (now or before), and is left alone for as long as it asked.
    #[error("RPC endpoint {endpoint} wants no calls for {} s", wait.as_secs() + 1)]
    TooManyCalls { endpoint: String, wait: Duration },
    /// It answers, and knows that it lags.
    #[error("RPC endpoint {endpoint} is behind: {reason}")]
    Behind {
        endpoint: String,
        slots: Option<u64>,
        reason: String,
    },
    /// None of the endpoints is worth asking.
    #[error("no RPC endpoint answers: {reason}")]
    Nobody { reason: String },
    /// The endpoint answered with an error of its own.
    #[error("RPC endpoint {endpoint} answered: {reason}")]
    Answered {
        endpoint: String,
        code: i64,
        reason: String,
    },
    /// The chain refused a transaction.
    #[error("the chain refused the transaction: {0}")]
    Refused(TransactionError),
    /// What is at the mint's address is not what readings are paid with: nobody can be paid.
    #[error("the mint {mint} {reason}")]
    MintUnknown { mint: String, reason: String },
    /// The answer contradicts itself or what was asked.
    #[error("RPC endpoint {endpoint} gave an answer that cannot be used: {reason}")]
    Unusable { endpoint: String, reason: String },
}

/// Who is at fault when the chain cannot be used. None of these uses an attempt of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This endpoint: network, overload, lag, an answer that is no use. Another one may do better, or it later.
    Endpoint,
    /// The moment: the blockhash is too old or not known yet, an account is busy. The next try may do.
    Moment,
    /// Nobody can be paid until a person has acted: the fee payer is empty.
    FeePayer,
    /// Nobody can be paid until a person has acted: the mint is unknown, or not ours to mint.
    Mint,
    /// A transaction was refused for none of these.
    Transaction,
}

impl ChainError {
    pub fn fault(&self) -> Fault {
        match self {
            ChainError::Unreachable { .. }
            | ChainError::TooManyCalls { .. }
            | ChainError::Behind { .. }
            | ChainError::Nobody { .. }
            | ChainError::Answered { .. }
            | ChainError::Unusable { .. } => Fault::Endpoint,
            ChainError::MintUnknown { .. } => Fault::Mint,
            ChainError::Refused(refusal) => match refusal {
                TransactionError::BlockhashNotFound
                | TransactionError::AccountInUse
                | TransactionError::ClusterMaintenance
                | TransactionError::WouldExceedMaxBlockCostLimit
                | TransactionError::WouldExceedMaxAccountCostLimit
                | TransactionError::WouldExceedMaxVoteCostLimit
                | TransactionError::WouldExceedAccountDataBlockLimit => Fault::Moment,
                // The fee payer comes first among a transaction's accounts.
                TransactionError::InsufficientFundsForFee
                | TransactionError::AccountNotFound
                | TransactionError::InvalidAccountForFee
                | TransactionError::InsufficientFundsForRent { account_index: 0 } => {
                    Fault::FeePayer
                }
                _ => Fault::Transaction,
            },
        }
    }

    /// Translates the client's error. reqwest's own text holds the URL, which may hold an access key: it is not used.
    pub fn from_client(endpoint: &str, error: &ClientError) -> ChainError {
        let endpoint = endpoint.to_owned();
        if let Some(wait) = sender::wait_asked(error) {
            return ChainError::TooManyCalls { endpoint, wait };
        }
        match error.kind() {
            ClientErrorKind::TransactionError(refusal) => ChainError::Refused(refusal.clone()),
            ClientErrorKind::RpcError(RpcError::RpcResponseError {
                code: JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY,
                message,
                data,
            }) => ChainError::Behind {
                endpoint,
                slots: match data {
                    RpcResponseErrorData::NodeUnhealthy { num_slots_behind } => *num_slots_behind,
                    _ => None,
                },
                reason: message.clone(),
            },
            ClientErrorKind::RpcError(RpcError::RpcResponseError {
                code: JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED,
                message,
                ..
            }) => ChainError::Behind {
                endpoint,
                slots: None,
                reason: message.clone(),
            },
            ClientErrorKind::RpcError(RpcError::RpcResponseError { code, message, .. }) => {
                match error.get_transaction_error() {
                    Some(refusal) => ChainError::Refused(refusal),
                    None => ChainError::Answered {
                        endpoint,
                        code: *code,
                        reason: message.clone(),
                    },
                }
            }
            ClientErrorKind::Reqwest(http) => ChainError::Unreachable {
                endpoint,
                reason: describe_http(http),
            },
            ClientErrorKind::Io(io) => ChainError::Unreachable {
                endpoint,
                reason: io.kind().to_string(),
            },
            ClientErrorKind::RpcError(other) => ChainError::Unusable {
                endpoint,
                reason: match other {
                    RpcError::RpcRequestError(text)
                    | RpcError::ParseError(text)
                    | RpcError::ForUser(text) => text.clone(),
                    RpcError::RpcResponseError { message, .. } => message.clone(),
                },
            },
            ClientErrorKind::SerdeJson(json) => ChainError::Unusable {
                endpoint,
                reason: format!("not the JSON that was expected ({})", describe_json(json)),
            },
            ClientErrorKind::Middleware(_)
            | ClientErrorKind::SigningError(_)
            | ClientErrorKind::Custom(_) => ChainError::Unusable {
                endpoint,
                reason: "the client failed".to_owned(),
            },
        }
    }

    /// Whether the same signed bytes are known to have landed already.
    pub fn is_already_processed(&self) -> bool {
        matches!(
            self,
            ChainError::Refused(TransactionError::AlreadyProcessed)
        )
    }
}

fn describe_http(error: &reqwest::Error) -> String {
    if let Some(status) = error.status() {
        format!("HTTP status {}", status.as_u16())
    } else if error.is_timeout() {
        "time-out".to_owned()
    } else if error.is_connect() {
        "connection refused or failed".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}

fn describe_json(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Io => "connection",
        serde_json::error::Category::Syntax => "syntax",
        serde_json::error::Category::Data => "shape",
        serde_json::error::Category::Eof => "cut short",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_somebody_at_fault_and_it_is_never_a_reading() {
        let unreachable = ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            reason: "time-out".to_owned(),
        };
        assert_eq!(unreachable.fault(), Fault::Endpoint);
        for (refusal, fault) in [
            (TransactionError::BlockhashNotFound, Fault::Moment),
            (TransactionError::AccountInUse, Fault::Moment),
            (TransactionError::InsufficientFundsForFee, Fault::FeePayer),
            (TransactionError::AccountNotFound, Fault::FeePayer),
            (
                TransactionError::InsufficientFundsForRent { account_index: 0 },
                Fault::FeePayer,
            ),
            (
                TransactionError::InsufficientFundsForRent { account_index: 3 },
                Fault::Transaction,
            ),
            (TransactionError::SignatureFailure, Fault::Transaction),
        ] {
            assert_eq!(ChainError::Refused(refusal).fault(), fault);
        }
    }

    #[test]
    fn a_node_that_says_it_is_behind_is_told_from_one_that_fails() {
        let error: ClientError = RpcError::RpcResponseError {
            code: -32005,
            message: "Node is behind by 42 slots".to_owned(),
            data: RpcResponseErrorData::NodeUnhealthy {
                num_slots_behind: Some(42),
            },
        }
        .into();
        let told = ChainError::from_client("rpc-2", &error);
        assert!(
            matches!(
                told,
                ChainError::Behind {
                    slots: Some(42),
                    ..
                }
            ),
            "{told}"
        );
        assert_eq!(
            told.to_string(),
            "RPC endpoint rpc-2 is behind: Node is behind by 42 slots"
        );
    }
}
