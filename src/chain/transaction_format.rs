//! Chooses the format of a transaction: v1 where the endpoint takes it, which a probe determines.
//!
//! Neither a date nor a version number shows it: a cluster activates v1 when its validators vote so, and a provider's nodes and
//! proxies follow when they are updated. So each endpoint has to simulate a v1 transaction of the largest size: once, again
//! after it was away, and rarely while it refuses.

use std::time::{Duration, Instant};

use solana_client::rpc_config::RpcSimulateTransactionConfig;
use solana_sdk::message::{VersionedMessage, v1};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::{TransactionError, VersionedTransaction};
use spl_memo_interface::instruction::build_memo;

use super::endpoints::{Endpoint, V1Answer};
use super::error::ChainError;
use super::error_reason::NoAnswer;
use super::transaction_failure::TransactionFailure;
use crate::domain::{
    COMPUTE_UNITS_MAX, LOADED_BYTES_MAX, TransactionFormat, TransactionFormatPolicy,
};

/// An endpoint that does not answer the probe delays no batch and no probe for longer.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);

/// JSON-RPC: invalid request, invalid parameters. Nodes that cannot decode a transaction, or find it too large, answer with these.
const INVALID_REQUEST: i64 = -32600;
const INVALID_PARAMS: i64 = -32602;
/// Solana's: the transaction's version is not supported.
const UNSUPPORTED_TRANSACTION_VERSION: i64 = -32015;

/// Size of the probe's transaction without its memo: a signature, the header with its limits, a blockhash, two addresses
/// and an instruction. With the memo it is as large as a v1 transaction may be, so that a proxy that limits sizes is found out too.
const QUESTION_BYTES_BESIDE_MEMO: usize = 64 + 3 + 7 + 8 + 32 + 2 * 32 + 4;

/// Chooses the format of transactions by the operator's setting and the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransactionFormats {
    policy: TransactionFormatPolicy,
}

impl TransactionFormats {
    pub fn new(policy: TransactionFormatPolicy) -> TransactionFormats {
        TransactionFormats { policy }
    }

    /// The format for the next transaction through this endpoint. Probes the endpoint if it was never probed; `payer` is the
    /// transaction's fee payer. Legacy while the endpoint gives no answer.
    pub async fn choose(self, endpoint: &Endpoint, payer: &Pubkey) -> TransactionFormat {
        if self.policy == TransactionFormatPolicy::Auto && endpoint.v1_support().takes().is_none() {
            self.refresh(endpoint, payer).await;
        }
        self.known(endpoint)
    }

    /// By what is known now: legacy before the endpoint has answered.
    pub fn known(self, endpoint: &Endpoint) -> TransactionFormat {
        match self.policy {
            TransactionFormatPolicy::Always(format) => format,
            TransactionFormatPolicy::Auto => match endpoint.v1_support().takes() {
                Some(true) => TransactionFormat::V1,
                Some(false) | None => TransactionFormat::Legacy,
            },
        }
    }

    /// Probes the endpoint if that is due.
    pub async fn refresh(self, endpoint: &Endpoint, payer: &Pubkey) {
        let is_due = endpoint.v1_support().is_due(Instant::now());
        if self.policy != TransactionFormatPolicy::Auto || !is_due {
            return;
        }
        let answer = tokio::time::timeout(QUESTION_LIMIT, simulate_question(endpoint, payer)).await;
        note(endpoint, answer.unwrap_or(V1Answer::Nothing));
    }

    /// Notes that the endpoint answered a v1 transaction with this error. Returns whether the error refuses the format, so that the
    /// same readings are packed again as legacy transactions; never where the operator has chosen the format.
    pub fn note_refusal(self, endpoint: &Endpoint, error: &ChainError) -> bool {
        let refuses = self.policy == TransactionFormatPolicy::Auto && refuses_format(error);
        if refuses {
            note(endpoint, V1Answer::Refuses);
        }
        refuses
    }
}

fn note(endpoint: &Endpoint, answer: V1Answer) {
    let mut support = endpoint.v1_support();
    let before = support.takes();
    support.record(answer, Instant::now());
    let takes = support.takes();
    drop(support);
    match takes {
        Some(true) if before != takes => {
            tracing::info!(
                endpoint = endpoint.name(),
                "RPC endpoint takes v1 transactions"
            );
        }
        Some(false) if before != takes => tracing::warn!(
            endpoint = endpoint.name(),
            "RPC endpoint refuses v1 transactions: legacy ones are built, which pay about a third of the readings for the same fee"
        ),
        _ => {}
    }
}

/// Simulates the probe's transaction. Any outcome of the simulation but a refusal of the format shows that the endpoint
/// understands v1, even that the payer has nothing.
async fn simulate_question(endpoint: &Endpoint, payer: &Pubkey) -> V1Answer {
    let Some(question) = question(payer) else {
        return V1Answer::Nothing;
    };
    let config = RpcSimulateTransactionConfig {
        sig_verify: false,
        replace_recent_blockhash: true,
        ..RpcSimulateTransactionConfig::default()
    };
    let answer = endpoint
        .hot()
        .simulate_transaction_with_config(&question, config)
        .await;
    match endpoint.answer(answer) {
        Ok(simulated) => match simulated.value.err.map(TransactionError::from) {
            Some(error) if refuses_format(&ChainError::Refused(error.clone().into())) => {
                V1Answer::Refuses
            }
            _ => V1Answer::Takes,
        },
        Err(error) if refuses_format(&error) => V1Answer::Refuses,
        Err(_) => V1Answer::Nothing,
    }
}

/// A v1 transaction of the largest size that changes nothing: a memo. `None` never happens with a constant memo.
fn question(payer: &Pubkey) -> Option<VersionedTransaction> {
    let memo = vec![b' '; TransactionFormat::V1.bytes_max() - QUESTION_BYTES_BESIDE_MEMO];
    let memo = build_memo(&spl_memo_interface::v3::ID, &memo, &[]);
    let header = v1::TransactionConfig::empty()
        .with_compute_unit_limit(COMPUTE_UNITS_MAX)
        .with_loaded_accounts_data_size_limit(LOADED_BYTES_MAX);
    let message =
        v1::Message::try_compile_with_config(payer, &[memo], Default::default(), header).ok()?;
    message.validate().ok()?;
    Some(VersionedTransaction {
        signatures: vec![Signature::default()],
        message: VersionedMessage::V1(message),
    })
}

/// Whether the error may mean that the transaction's format is not understood. One of these about another fault costs no more than
/// a legacy transaction, which shows that fault again.
fn refuses_format(error: &ChainError) -> bool {
    match error {
        ChainError::ErrorResponse { code, .. } => matches!(
            *code,
            INVALID_REQUEST | INVALID_PARAMS | UNSUPPORTED_TRANSACTION_VERSION
        ),
        ChainError::Refused(TransactionFailure::Named(
            TransactionError::UnsupportedVersion | TransactionError::SanitizeFailure,
        )) => true,
        // Bad request, content too large, unprocessable content: a gateway in front of the node.
        ChainError::Unreachable {
            reason: NoAnswer::HttpStatus(400 | 413 | 422),
            ..
        } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::signed_bytes;

    #[test]
    fn the_question_is_as_large_as_a_v1_transaction_may_be() {
        let question = question(&Pubkey::new_unique()).unwrap();
        assert_eq!(signed_bytes::encode(&question).unwrap().len(), 4_096);
    }

    #[test]
    fn only_errors_about_the_form_refuse_the_format() {
        let response = |code| ChainError::ErrorResponse {
            endpoint: "rpc-1".to_owned(),
            method: "simulateTransaction",
            code,
            message: String::new(),
        };
        let status = |status| ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "simulateTransaction",
            reason: NoAnswer::HttpStatus(status),
        };
        for refusal in [
            response(-32602),
            response(-32600),
            response(-32015),
            status(400),
            status(413),
            ChainError::Refused(TransactionError::UnsupportedVersion.into()),
            ChainError::Refused(TransactionError::SanitizeFailure.into()),
        ] {
            assert!(refuses_format(&refusal), "{refusal}");
        }
        for other in [
            response(-32601),
            response(-32603),
            response(-32005),
            status(403),
            status(429),
            status(502),
            ChainError::Refused(TransactionError::InsufficientFundsForFee.into()),
            ChainError::Refused(TransactionError::BlockhashNotFound.into()),
        ] {
            assert!(!refuses_format(&other), "{other}");
        }
    }
}
