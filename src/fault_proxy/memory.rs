//! Answers of a node that lags, forgets or lies: the node's own answer, or what it would have said.

use serde_json::{Value, json};

use super::upstream::Upstream;

/// What Solana nodes answer for a block that they do not have yet.
const BLOCK_NOT_AVAILABLE: i64 = -32004;
/// And for one that they do not have any more.
const SLOT_MISSING: i64 = -32009;
/// A transaction signed on the hash of a block is valid for so many blocks after it.
const BLOCKHASH_LIFE: u64 = 150;
/// Slots that may be skipped before one with a block.
const LOOK_BACK_SLOTS: u64 = 64;

/// The answer as the node would have given it `slots` slots ago. Accounts are as they are now: an old state cannot be had.
pub(super) async fn lagging(upstream: &Upstream, call: &Value, slots: u64) -> Option<Value> {
    let method = call["method"].as_str().unwrap_or_default();
    match method {
        "getBlock" | "getBlockTime" => {
            let slot = call["params"][0].as_u64().unwrap_or_default();
            if slot > present_slot(upstream).await.saturating_sub(slots) {
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
        "getSlot" | "getBlockHeight" => set_back(result, slots),
        "getEpochInfo" => {
            set_back(&mut result["absoluteSlot"], slots);
            set_back(&mut result["blockHeight"], slots);
        }
        "getBlocks" => {
            let newest = present_slot(upstream).await.saturating_sub(slots);
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
        set_back(&mut result["context"]["slot"], slots);
    }
    Some(answer)
}

async fn present_slot(upstream: &Upstream) -> u64 {
    let slot = upstream.ask("getSlot", json!([{ "commitment": "confirmed" }]));
    slot.await.as_u64().unwrap_or_default()
}

async fn old_blockhash(upstream: &Upstream, call: &Value, slots: u64) -> Option<Value> {
    let newest = present_slot(upstream).await.saturating_sub(slots);
    for slot in (newest.saturating_sub(LOOK_BACK_SLOTS)..=newest).rev() {
        let config =
            json!({ "transactionDetails": "none", "rewards": false, "commitment": "confirmed" });
        let block = upstream.ask("getBlock", json!([slot, config])).await;
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

fn set_back(number: &mut Value, slots: u64) {
    if let Some(known) = number.as_u64() {
        *number = json!(known.saturating_sub(slots));
    }
}

/// As a node answers that keeps no history.
pub(super) async fn without_history(upstream: &Upstream, call: &Value) -> Option<Value> {
    let result = match call["method"].as_str().unwrap_or_default() {
        "getBlock" => {
            let slot = call["params"][0].as_u64().unwrap_or_default();
            let text = format!("Slot {slot} was skipped, or missing in long-term storage");
            return Some(error_of(call, SLOT_MISSING, &text));
        }
        "getTransaction" => Value::Null,
        "getBlocks" | "getSignaturesForAddress" => json!([]),
        "getSignatureStatuses" => return not_found(upstream, call).await,
        _ => return upstream.forward(call).await,
    };
    Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
}

/// Landed signatures are said not to be found.
pub(super) async fn not_found(upstream: &Upstream, call: &Value) -> Option<Value> {
    let mut answer = upstream.forward(call).await?;
    each_status(&mut answer["result"], |status| *status = Value::Null);
    Some(answer)
}

/// Signatures that nobody has seen are said to be confirmed.
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

fn each_status(result: &mut Value, change: impl FnMut(&mut Value)) {
    if let Some(statuses) = result["value"].as_array_mut() {
        statuses.iter_mut().for_each(change);
    }
}

pub(super) fn error_of(call: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message } })
}
