//! What can go wrong when the chain is asked, in words that never hold an endpoint's URL.

use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_request::RpcError;
use solana_sdk::transaction::TransactionError;
use thiserror::Error;

/// An answer that did not come, or was no use.
#[derive(Debug, Error)]
pub enum ChainError {
    /// No answer: connection, time-out, overload. Says nothing about what the endpoint did.
    #[error("RPC endpoint {endpoint} did not answer: {reason}")]
    Unreachable { endpoint: String, reason: String },
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
    /// The answer contradicts itself or what was asked.
    #[error("RPC endpoint {endpoint} gave an answer that cannot be used: {reason}")]
    Unusable { endpoint: String, reason: String },
}

impl ChainError {
    /// Translates the client's error. reqwest's own text holds the URL, which may hold an access key: it is not used.
    pub fn from_client(endpoint: &str, error: &ClientError) -> ChainError {
        let endpoint = endpoint.to_owned();
        match error.kind() {
            ClientErrorKind::TransactionError(refusal) => ChainError::Refused(refusal.clone()),
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
