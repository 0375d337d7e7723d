//! Sends recorded bytes: rule 2 of the ledger. The signature is the chain's idempotency key, so the same bytes may be sent any
//! number of times.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use solana_client::rpc_request::RpcRequest;

use crate::chain::{ChainError, Endpoint, Endpoints, Finality};
use crate::domain::TxSignature;

/// Time limit of one re-send to one endpoint: the next re-send comes soon, and other endpoints wait behind this one.
const RESEND_LIMIT: Duration = Duration::from_secs(5);

/// Sends to one endpoint. "Already processed" is not a failure: this signature landed.
///
/// Preflight is skipped: the transaction was simulated before it was signed, and a refusal now would prove nothing.
pub async fn send(endpoint: &Endpoint, signed_bytes: &[u8]) -> Result<(), ChainError> {
    // The node forgets bytes whose blockhash it does not know at this commitment.
    let commitment = endpoint.commitment(Finality::Confirmed).commitment;
    let parameters = json!([
        STANDARD.encode(signed_bytes),
        { "encoding": "base64", "skipPreflight": true, "preflightCommitment": commitment }
    ]);
    let answer: Result<String, _> = endpoint
        .hot()
        .send(RpcRequest::SendTransaction, parameters)
        .await;
    match answer.map_err(|error| ChainError::from_client(endpoint.name(), &error)) {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_processed() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sends to the endpoint that returned the blockhash, then to the others; an endpoint that requested a pause gets no
/// call. A failure is only logged: the resolver checks whether the transaction landed, and sends again.
pub async fn send_to_all(
    endpoints: &Endpoints,
    first: &str,
    signature: &TxSignature,
    signed_bytes: &[u8],
) {
    if let Some(endpoint) = endpoints.by_name(first) {
        send_again(endpoint, signature, signed_bytes).await;
    }
    send_to_others(endpoints, first, signature, signed_bytes).await;
}

/// Sends to all endpoints except the one that was tried.
pub async fn send_to_others(
    endpoints: &Endpoints,
    tried: &str,
    signature: &TxSignature,
    signed_bytes: &[u8],
) {
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.name() != tried) {
        send_again(endpoint, signature, signed_bytes).await;
    }
}

async fn send_again(endpoint: &Endpoint, signature: &TxSignature, signed_bytes: &[u8]) {
    match tokio::time::timeout(RESEND_LIMIT, send(endpoint, signed_bytes)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%signature, %error, "re-send rejected"),
        Err(_) => tracing::debug!(%signature, endpoint = endpoint.name(), "re-send timed out"),
    }
}
