//! Translates errors of solana-client into a [`ChainError`].

use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED, JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY,
};
use solana_client::rpc_request::{RpcError, RpcResponseErrorData};

use super::endpoints::rate_limit;
use super::error::ChainError;
use super::error_reason::{Lag, NoAnswer, UnusableAnswer};

impl ChainError {
    /// reqwest's own text holds the URL, which may hold an access key: it is not used.
    pub fn from_client(endpoint: &str, error: &ClientError) -> ChainError {
        let endpoint = endpoint.to_owned();
        if let Some(wait) = rate_limit::pause_of(error) {
            return ChainError::RateLimited { endpoint, wait };
        }
        match error.kind() {
            ClientErrorKind::TransactionError(error) => ChainError::Refused(error.clone()),
            ClientErrorKind::RpcError(RpcError::RpcResponseError {
                code,
                message,
                data,
            }) => match *code {
                JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY => ChainError::Behind {
                    endpoint,
                    lag: Lag::Reported {
                        slots: match data {
                            RpcResponseErrorData::NodeUnhealthy { num_slots_behind } => {
                                *num_slots_behind
                            }
                            _ => None,
                        },
                        message: message.clone(),
                    },
                },
                JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED => ChainError::Behind {
                    endpoint,
                    lag: Lag::Reported {
                        slots: None,
                        message: message.clone(),
                    },
                },
                code => match error.get_transaction_error() {
                    Some(error) => ChainError::Refused(error),
                    None => ChainError::ErrorResponse {
                        endpoint,
                        code,
                        message: message.clone(),
                    },
                },
            },
            ClientErrorKind::RpcError(
                RpcError::RpcRequestError(text)
                | RpcError::ParseError(text)
                | RpcError::ForUser(text),
            ) => ChainError::Unusable {
                endpoint,
                reason: UnusableAnswer::NotRpc(text.clone()),
            },
            ClientErrorKind::Reqwest(error) => ChainError::Unreachable {
                endpoint,
                reason: no_answer(error),
            },
            ClientErrorKind::Io(error) => ChainError::Unreachable {
                endpoint,
                reason: NoAnswer::Io(error.kind()),
            },
            ClientErrorKind::SerdeJson(error) => ChainError::Unusable {
                endpoint,
                reason: UnusableAnswer::NotJson(describe_json(error)),
            },
            ClientErrorKind::Middleware(_)
            | ClientErrorKind::SigningError(_)
            | ClientErrorKind::Custom(_) => ChainError::Unusable {
                endpoint,
                reason: UnusableAnswer::ClientFailed,
            },
        }
    }
}

fn no_answer(error: &reqwest::Error) -> NoAnswer {
    if let Some(status) = error.status() {
        NoAnswer::HttpStatus(status.as_u16())
    } else if error.is_timeout() {
        NoAnswer::TimedOut
    } else if error.is_connect() {
        NoAnswer::ConnectFailed
    } else {
        NoAnswer::ConnectionBroke
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
    fn a_node_that_reports_that_it_is_behind_does_not_count_as_failed() {
        let error: ClientError = RpcError::RpcResponseError {
            code: -32005,
            message: "Node is behind by 42 slots".to_owned(),
            data: RpcResponseErrorData::NodeUnhealthy {
                num_slots_behind: Some(42),
            },
        }
        .into();
        let translated = ChainError::from_client("rpc-2", &error);
        assert!(
            matches!(
                &translated,
                ChainError::Behind { lag, .. } if lag.slots() == Some(42)
            ),
            "{translated}"
        );
        assert_eq!(
            translated.to_string(),
            "RPC endpoint rpc-2 is behind: Node is behind by 42 slots"
        );
    }
}
