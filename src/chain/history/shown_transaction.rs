//! A transaction as an endpoint shows it: read from its own bytes, never from the node's interpretation of them.

use serde::Deserialize;
use serde_json::{Value, json};
use solana_client::client_error::Result as ClientResult;
use solana_client::rpc_config::RpcTransactionConfig;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::{
    EncodedTransaction, UiTransactionEncoding, UiTransactionStatusMeta,
};

use super::call_retry::while_unanswered;
use super::executed_transaction::ExecutedTransaction;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::{TransactionProblem, UnusableAnswer};
use crate::chain::transaction_failure::TransactionFailure;
use crate::domain::{NEWEST_TRANSACTION_VERSION, TxSignature};

/// JSON-RPC error of nodes for a transaction of a version above the one that the call allows.
const UNSUPPORTED_VERSION: i64 = -32015;

/// A transaction that an endpoint shows, with its outcome.
pub(super) struct ShownTransaction {
    pub slot: u64,
    pub block_time: Option<i64>,
    pub transaction: VersionedTransaction,
    pub meta: UiTransactionStatusMeta,
    /// The error with which it landed; `meta` does not have it.
    pub failure: Option<TransactionFailure>,
}

/// The answer of `getTransaction`, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    slot: u64,
    #[serde(default)]
    block_time: Option<i64>,
    transaction: EncodedTransaction,
    #[serde(default)]
    meta: Value,
}

/// `None` proves only that this endpoint does not show it now.
pub(super) async fn fetch(
    endpoint: &Endpoint,
    signature: TxSignature,
    finality: Finality,
) -> Result<Option<ShownTransaction>, ChainError> {
    let config = RpcTransactionConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        commitment: Some(endpoint.commitment(finality)),
        max_supported_transaction_version: Some(NEWEST_TRANSACTION_VERSION),
    };
    let parameters = json!([signature.to_string(), config]);
    let unusable = |problem| unusable(endpoint, signature, problem);
    let call = || async {
        let answer: ClientResult<Value> = endpoint
            .background()
            .send(RpcRequest::GetTransaction, parameters.clone())
            .await;
        match endpoint.answer(answer) {
            Err(ChainError::ErrorResponse {
                code: UNSUPPORTED_VERSION,
                ..
            }) => Err(unusable(TransactionProblem::NewerVersion)),
            answer => answer,
        }
    };
    let answer = while_unanswered(call).await?;
    if answer.is_null() {
        return Ok(None);
    }
    let found: Answer =
        serde_json::from_value(answer).map_err(|_| unusable(TransactionProblem::Undecodable))?;
    let transaction = found
        .transaction
        .decode()
        .ok_or_else(|| unusable(TransactionProblem::Undecodable))?;
    if transaction.signatures.first() != Some(&signature.signature()) {
        return Err(unusable(TransactionProblem::AnotherOne));
    }
    let (failure, meta) =
        outcome(found.meta).ok_or_else(|| unusable(TransactionProblem::NoOutcome))?;
    Ok(Some(ShownTransaction {
        slot: found.slot,
        block_time: found.block_time,
        transaction,
        meta,
        failure,
    }))
}

/// The error with which it landed, and the rest of its outcome. The error is taken out before the rest is parsed, since the client
/// crate may not be able to name it. `None`: there is no outcome, or it cannot be read.
fn outcome(mut meta: Value) -> Option<(Option<TransactionFailure>, UiTransactionStatusMeta)> {
    let fields = meta.as_object_mut()?;
    let failure = TransactionFailure::read(fields.get("err")?);
    fields.insert("err".to_owned(), Value::Null);
    fields.insert("status".to_owned(), json!({ "Ok": null }));
    Some((failure, serde_json::from_value(meta).ok()?))
}

/// What an account held before this transaction: nothing when it did not exist yet. `None` when the endpoint does not show the
/// transaction, or the transaction does not mention the account.
pub(super) async fn lamports_before(
    endpoint: &Endpoint,
    signature: TxSignature,
    account: &Pubkey,
    finality: Finality,
) -> Result<Option<u64>, ChainError> {
    let Some(shown) = fetch(endpoint, signature, finality).await? else {
        return Ok(None);
    };
    let position = shown.executed(endpoint, signature)?.position(account);
    Ok(position.and_then(|position| shown.meta.pre_balances.get(position).copied()))
}

impl ShownTransaction {
    pub fn executed(
        &self,
        endpoint: &Endpoint,
        signature: TxSignature,
    ) -> Result<ExecutedTransaction, ChainError> {
        let executed =
            ExecutedTransaction::decode(&self.transaction, &self.meta).ok_or_else(|| {
                unusable(
                    endpoint,
                    signature,
                    TransactionProblem::UndecodableInstructions,
                )
            })?;
        // A failed one minted nothing, whatever it called.
        if self.failure.is_some() || executed.is_complete() {
            return Ok(executed);
        }
        Err(unusable(
            endpoint,
            signature,
            TransactionProblem::NoInnerInstructions,
        ))
    }
}

fn unusable(
    endpoint: &Endpoint,
    signature: TxSignature,
    problem: TransactionProblem,
) -> ChainError {
    endpoint.unusable(UnusableAnswer::Transaction {
        signature,
        slot: None,
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(err: &Value) -> Value {
        json!({
            "err": err, "status": { "Err": err }, "fee": 5_000, "preBalances": [7], "postBalances": [2],
            "innerInstructions": [], "logMessages": null, "preTokenBalances": [], "postTokenBalances": [],
            "rewards": [], "loadedAddresses": { "writable": [], "readonly": [] },
        })
    }

    #[test]
    fn an_error_that_the_client_cannot_name_means_failed_and_the_rest_is_read() {
        let errors = [
            json!({ "InstructionError": [0, { "BorshIoError": "Unknown" }] }),
            json!({ "InstructionError": [1, "ErrorOf2028"] }),
            json!({ "InstructionError": [300, { "Custom": 4_294_967_296_u64 }] }),
            json!("AccountNotFound"),
        ];
        for err in &errors {
            let (failure, read) = outcome(meta(err)).unwrap();
            assert!(failure.is_some(), "{err}");
            assert_eq!((read.fee, read.pre_balances), (5_000, vec![7]), "{err}");
        }
        assert!(outcome(meta(&Value::Null)).unwrap().0.is_none());
    }

    #[test]
    fn a_transaction_without_an_outcome_has_none() {
        assert!(outcome(Value::Null).is_none());
        assert!(outcome(json!({ "fee": 5_000 })).is_none());
    }
}
