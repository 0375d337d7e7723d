//! Probes the capabilities of an endpoint: five background calls.

use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_sdk::pubkey::Pubkey;

use crate::chain::endpoints::{Ability, Capabilities, Endpoint};
use crate::chain::error::ChainError;
use crate::chain::error_reason::{CallProblem, UnusableAnswer};

/// Slots before the newest finalized one in which a block is searched for: many in a row may be skipped.
const BLOCK_WITHIN_SLOTS: u64 = 50;
/// Version of transactions that a block may hold: the newest that this service reads.
const NEWEST_VERSION: u8 = 1;

/// Probes the endpoint if that is due, and stores what was found. `authority`: its history is queried.
pub async fn probe_capabilities(endpoint: &Endpoint, authority: &Pubkey) {
    let now = Instant::now();
    if !endpoint.capabilities_are_due(now) {
        return;
    }
    let finalized_slot = endpoint.finalized_slot().await.ok();
    let blocks = match finalized_slot {
        Some(slot) => Ability::of(newest_block(endpoint, slot).await),
        None => Ability::Unknown,
    };
    let found = Capabilities {
        blocks,
        history: Ability::of(history(endpoint, authority).await),
        first_available_slot: endpoint.first_available_slot().await.ok(),
        finalized_slot,
        probed_at: Some(Utc::now()),
    };
    endpoint.set_capabilities(found, now);
}

/// Lists the newest finalized blocks and reads the last one, as a proof of death does.
async fn newest_block(endpoint: &Endpoint, finalized_slot: u64) -> Result<(), ChainError> {
    let first = finalized_slot.saturating_sub(BLOCK_WITHIN_SLOTS);
    let finalized = json!({ "commitment": "finalized" });
    let parameters = json!([first, finalized_slot, finalized]);
    let listed = call(endpoint, RpcRequest::GetBlocks, parameters).await?;
    let Some(slot) = listed.as_array().and_then(|slots| slots.last()) else {
        return Err(no_list(endpoint, "getBlocks", &listed));
    };
    let config = json!({
        "commitment": "finalized",
        "transactionDetails": "signatures",
        "rewards": false,
        "maxSupportedTransactionVersion": NEWEST_VERSION,
    });
    let block = call(endpoint, RpcRequest::GetBlock, json!([slot, config])).await?;
    if block["signatures"].is_array() && block["parentSlot"].is_u64() {
        return Ok(());
    }
    Err(no_list(endpoint, "getBlock", &block))
}

async fn history(endpoint: &Endpoint, authority: &Pubkey) -> Result<(), ChainError> {
    let parameters = json!([authority.to_string(), { "limit": 1, "commitment": "finalized" }]);
    let listed = call(endpoint, RpcRequest::GetSignaturesForAddress, parameters).await?;
    if listed.is_array() {
        return Ok(());
    }
    Err(no_list(endpoint, "getSignaturesForAddress", &listed))
}

async fn call(
    endpoint: &Endpoint,
    request: RpcRequest,
    parameters: Value,
) -> Result<Value, ChainError> {
    endpoint.answer(endpoint.background().send(request, parameters).await)
}

fn no_list(endpoint: &Endpoint, method: &'static str, answer: &Value) -> ChainError {
    endpoint.unusable(UnusableAnswer::Call {
        method,
        problem: CallProblem::of_value(answer),
    })
}
