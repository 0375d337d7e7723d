//! Answers of a node that lags, has pruned its history, or reports wrong statuses: made from the real node's answers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::upstream::Upstream;

/// The error of JSON-RPC for parameters that cannot be decoded.
const INVALID_PARAMS: i64 = -32602;
/// The error of Solana nodes for a block that they do not have yet.
const BLOCK_NOT_AVAILABLE: i64 = -32004;
/// For one older than all that they store.
const BLOCK_CLEANED_UP: i64 = -32001;
/// For one that they do not have any more.
const SLOT_MISSING: i64 = -32009;
/// A transaction signed on the hash of a block is valid for this many blocks after it.
const BLOCKHASH_LIFE: u64 = 150;
/// Slots that may be skipped before one with a block.
const LOOK_BACK_SLOTS: u64 = 64;

/// The answer as the node would have given it `slots` slots ago. Accounts are as they are now: their old state is not available.
pub(super) async fn lagging(upstream: &Upstream, call: &Value, slots: u64) -> Option<Value> {
    let method = call["method"].as_str().unwrap_or_default();
    match method {
        "getBlock" | "getBlockTime" => {
            let slot = call["params"][0].as_u64().unwrap_or_default();
            if slot > current_slot(upstream).await.saturating_sub(slots) {
                return Some(error_of(
                    call,
                    BLOCK_NOT_AVAILABLE,
                    &format!("Block not available for slot {slot}"),
                ));
            }
        }
        "getLatestBlockhash" => return old_blockhash(upstream, call, slots).await,
        _ => {}
    }
    let mut answer = upstream.forward(call).await?;
    let result = &mut answer["result"];
    match method {
        "getSlot" | "getBlockHeight" => subtract_slots(result, slots),
        "getEpochInfo" => {
            subtract_slots(&mut result["absoluteSlot"], slots);
            subtract_slots(&mut result["blockHeight"], slots);
        }
        "getBlocks" => {
            let newest = current_slot(upstream).await.saturating_sub(slots);
            if let Some(list) = result.as_array_mut() {
                list.retain(|slot| slot.as_u64().is_some_and(|slot| slot <= newest));
            }
        }
        "getSignatureStatuses" => {
            let newest = result["context"]["slot"]
                .as_u64()
                .unwrap_or_default()
                .saturating_sub(slots);
            each_status(result, |status| {
                if status["slot"].as_u64().is_some_and(|slot| slot > newest) {
                    *status = Value::Null;
                }
            });
        }
        _ => {}
    }
    if result["context"]["slot"].is_number() {
        subtract_slots(&mut result["context"]["slot"], slots);
    }
    Some(answer)
}

async fn current_slot(upstream: &Upstream) -> u64 {
    let slot = at_newest_commitment(upstream, "getSlot", &[], json!({}));
    slot.await.as_u64().unwrap_or_default()
}

/// Asks at `confirmed`, and at `finalized` where the node refuses that.
async fn at_newest_commitment(
    upstream: &Upstream,
    method: &str,
    parameters: &[Value],
    mut configuration: Value,
) -> Value {
    for commitment in ["confirmed", "finalized"] {
        configuration["commitment"] = json!(commitment);
        let parameters = [parameters, &[configuration.clone()]].concat();
        let answer = upstream.call(method, json!(parameters)).await;
        if !answer.is_null() {
            return answer;
        }
    }
    Value::Null
}

async fn old_blockhash(upstream: &Upstream, call: &Value, slots: u64) -> Option<Value> {
    let newest = current_slot(upstream).await.saturating_sub(slots);
    for slot in (newest.saturating_sub(LOOK_BACK_SLOTS)..=newest).rev() {
        let configuration = json!({ "transactionDetails": "none", "rewards": false });
        let block = at_newest_commitment(upstream, "getBlock", &[json!(slot)], configuration).await;
        if let Some(height) = block["blockHeight"].as_u64() {
            return Some(json!({
                "jsonrpc": "2.0",
                "id": call["id"],
                "result": {
                    "context": { "slot": slot },
                    "value": {
                        "blockhash": block["blockhash"],
                        "lastValidBlockHeight": height + BLOCKHASH_LIFE,
                    },
                },
            }));
        }
    }
    upstream.forward(call).await
}

fn subtract_slots(number: &mut Value, slots: u64) {
    if let Some(known) = number.as_u64() {
        *number = json!(known.saturating_sub(slots));
    }
}

/// The answer of a node without history.
pub(super) async fn without_history(upstream: &Upstream, call: &Value) -> Option<Value> {
    let result = match call["method"].as_str().unwrap_or_default() {
        "getBlock" => {
            let slot = call["params"][0].as_u64().unwrap_or_default();
            let text = format!("Slot {slot} was skipped, or missing in long-term storage");
            return Some(error_of(call, SLOT_MISSING, &text));
        }
        "getTransaction" => Value::Null,
        "getFirstAvailableBlock" => json!(current_slot(upstream).await),
        "getBlocks" | "getSignaturesForAddress" => json!([]),
        "getSignatureStatuses" => return not_found(upstream, call).await,
        _ => return upstream.forward(call).await,
    };
    Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
}

/// The answer of a node that has pruned the slots before `oldest`.
pub(super) async fn pruned(upstream: &Upstream, call: &Value, oldest: u64) -> Option<Value> {
    let method = call["method"].as_str().unwrap_or_default();
    let is_available = |slot: &Value| slot.as_u64().is_none_or(|slot| slot >= oldest);
    if let "getBlock" | "getBlockTime" = method
        && !is_available(&call["params"][0])
    {
        let text = format!(
            "Block {} cleaned up, does not exist on node. First available block: {oldest}",
            call["params"][0]
        );
        return Some(error_of(call, BLOCK_CLEANED_UP, &text));
    }
    let mut answer = upstream.forward(call).await?;
    let result = &mut answer["result"];
    match method {
        "getFirstAvailableBlock" | "minimumLedgerSlot" => *result = json!(oldest),
        "getTransaction" if !is_available(&result["slot"]) => *result = Value::Null,
        "getBlocks" | "getBlocksWithLimit" => {
            if let Some(slots) = result.as_array_mut() {
                slots.retain(is_available);
            }
        }
        "getSignaturesForAddress" => {
            if let Some(listed) = result.as_array_mut() {
                listed.retain(|entry| is_available(&entry["slot"]));
            }
        }
        "getSignatureStatuses" => each_status(result, |status| {
            if !is_available(&status["slot"]) {
                *status = Value::Null;
            }
        }),
        _ => {}
    }
    Some(answer)
}

/// Reports landed signatures as not found.
pub(super) async fn not_found(upstream: &Upstream, call: &Value) -> Option<Value> {
    let mut answer = upstream.forward(call).await?;
    each_status(&mut answer["result"], |status| *status = Value::Null);
    Some(answer)
}

/// Reports unknown signatures as confirmed.
pub(super) async fn confirmed(upstream: &Upstream, call: &Value) -> Option<Value> {
    let mut answer = upstream.forward(call).await?;
    let slot = answer["result"]["context"]["slot"].clone();
    each_status(&mut answer["result"], |status| {
        if status.is_null() {
            *status = json!({
                "slot": slot, "confirmations": 1, "err": null, "status": { "Ok": null },
                "confirmationStatus": "confirmed",
            });
        }
    });
    Some(answer)
}

/// Whether the call carries a v1 transaction, which begins with its version: the top bit of the first byte is set.
pub(super) fn carries_v1(call: &Value) -> bool {
    if !matches!(
        call["method"].as_str(),
        Some("sendTransaction" | "simulateTransaction")
    ) {
        return false;
    }
    let signed_bytes = call["params"][0]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok());
    signed_bytes.is_some_and(|bytes| bytes.first().is_some_and(|first| first & 0x80 != 0))
}

/// The answer of a node that does not know the format of the transaction.
pub(super) fn unknown_format(call: &Value) -> Value {
    error_of(
        call,
        INVALID_PARAMS,
        "failed to deserialize solana_transaction::versioned::VersionedTransaction: io error: failed to fill whole buffer",
    )
}

fn each_status(result: &mut Value, change: impl FnMut(&mut Value)) {
    if let Some(statuses) = result["value"].as_array_mut() {
        statuses.iter_mut().for_each(change);
    }
}

pub(super) fn error_of(call: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message } })
}
