//! Translates errors of solana-client into a [`ChainError`].

use solana_client::client_error::{ClientError, ClientErrorKind};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED, JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY,
};
use solana_client::rpc_request::{RpcError, RpcResponseErrorData};

use super::endpoints::rpc_method::method_name;
use super::endpoints::{limit_recognition, rate_limit};
use super::error::ChainError;
use super::error_reason::{CallProblem, Lag, NoAnswer, UnusableAnswer};

impl ChainError {
    /// reqwest's own text holds the URL, which may hold an access key: it is not used.
    pub fn from_client(endpoint: &str, error: &ClientError) -> ChainError {
        let endpoint = endpoint.to_owned();
        let method = error
            .request()
            .map_or("a call", |request| method_name(*request));
        if let Some(wait) = rate_limit::pause_of(error) {
            return ChainError::RateLimited { endpoint, wait };
        }
        if let Some((limit, answer)) = limit_recognition::limit_met(error) {
            return ChainError::Limited {
                endpoint,
                method,
                limit,
                answer: answer.to_owned(),
            };
        }
        let unusable = |endpoint, problem| ChainError::Unusable {
            endpoint,
            reason: UnusableAnswer::Call { method, problem },
        };
        match error.kind() {
            ClientErrorKind::TransactionError(error) => ChainError::Refused(error.clone().into()),
            ClientErrorKind::RpcError(RpcError::RpcResponseError {
                code,
                message,
                data,
            }) => match error.get_transaction_error() {
                Some(error) => ChainError::Refused(error.into()),
                None => from_code(endpoint, method, *code, message, data),
            },
            ClientErrorKind::RpcError(
                RpcError::RpcRequestError(text)
                | RpcError::ParseError(text)
                | RpcError::ForUser(text),
            ) => unusable(endpoint, CallProblem::NotRpc(text.clone())),
            ClientErrorKind::Reqwest(error) => ChainError::Unreachable {
                endpoint,
                method,
                reason: no_answer(error),
            },
            ClientErrorKind::Io(error) => ChainError::Unreachable {
                endpoint,
                method,
                reason: NoAnswer::Io(error.kind()),
            },
            ClientErrorKind::SerdeJson(error) => unusable(endpoint, CallProblem::of_json(error)),
            ClientErrorKind::Middleware(_)
            | ClientErrorKind::SigningError(_)
            | ClientErrorKind::Custom(_) => unusable(endpoint, CallProblem::ClientFailed),
        }
    }
}

fn from_code(
    endpoint: String,
    method: &'static str,
    code: i64,
    message: &str,
    data: &RpcResponseErrorData,
) -> ChainError {
    let slots = match data {
        RpcResponseErrorData::NodeUnhealthy { num_slots_behind } => *num_slots_behind,
        _ => None,
    };
    match code {
        JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY
        | JSON_RPC_SERVER_ERROR_MIN_CONTEXT_SLOT_NOT_REACHED => ChainError::Behind {
            endpoint,
            lag: Lag::Reported {
                slots,
                message: message.to_owned(),
            },
        },
        code => ChainError::ErrorResponse {
            endpoint,
            method,
            code,
            message: message.to_owned(),
        },
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
