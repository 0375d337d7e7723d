//! A transaction as an endpoint shows it: read from its own bytes, never from the node's interpretation of them.

use serde_json::{Value, json};
use solana_client::client_error::Result as ClientResult;
use solana_client::rpc_config::RpcTransactionConfig;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::{
    EncodedConfirmedTransactionWithStatusMeta, UiTransactionEncoding, UiTransactionStatusMeta,
};

use super::call_retry::while_unanswered;
use super::executed_transaction::ExecutedTransaction;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::{TransactionProblem, UnusableAnswer};
use crate::chain::transaction_failure::TransactionFailure;
use crate::domain::{NEWEST_TRANSACTION_VERSION, TxSignature};

pub(super) struct ShownTransaction {
    pub slot: u64,
    pub block_time: Option<i64>,
    pub transaction: VersionedTransaction,
    pub meta: UiTransactionStatusMeta,
    /// The error with which it landed; `meta` does not have it.
    pub failure: Option<TransactionFailure>,
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
    let call = || async {
        let answer: ClientResult<Value> = endpoint
            .background()
            .send(RpcRequest::GetTransaction, parameters.clone())
            .await;
        endpoint.answer(answer)
    };
    let mut answer = while_unanswered(call).await?;
    if answer.is_null() {
        return Ok(None);
    }
    let unusable = |problem| unusable(endpoint, signature, problem);
    let failure = take_failure(&mut answer);
    let found: EncodedConfirmedTransactionWithStatusMeta =
        serde_json::from_value(answer).map_err(|_| unusable(TransactionProblem::Undecodable))?;
    let transaction = found
        .transaction
        .transaction
        .decode()
        .ok_or_else(|| unusable(TransactionProblem::Undecodable))?;
    if transaction.signatures.first() != Some(&signature.signature()) {
        return Err(unusable(TransactionProblem::AnotherOne));
    }
    let meta = found
        .transaction
        .meta
        .ok_or_else(|| unusable(TransactionProblem::NoOutcome))?;
    Ok(Some(ShownTransaction {
        slot: found.slot,
        block_time: found.block_time,
        transaction,
        meta,
        failure,
    }))
}

/// Takes the error out of the metadata, so that the rest can be read where the client crate cannot name it.
fn take_failure(answer: &mut Value) -> Option<TransactionFailure> {
    let meta = answer.get_mut("meta").filter(|meta| meta.is_object())?;
    let failure = TransactionFailure::read(&meta["err"]);
    if failure.is_some() {
        meta["err"] = Value::Null;
        meta["status"] = json!({ "Ok": null });
    }
    failure
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
        ExecutedTransaction::decode(&self.transaction, &self.meta).ok_or_else(|| {
            unusable(
                endpoint,
                signature,
                TransactionProblem::UndecodableInstructions,
            )
        })
    }
}

fn unusable(
    endpoint: &Endpoint,
    signature: TxSignature,
    problem: TransactionProblem,
) -> ChainError {
    endpoint.unusable(UnusableAnswer::Transaction { signature, problem })
}
