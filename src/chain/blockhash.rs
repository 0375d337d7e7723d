//! The blockhash that a transaction is signed on, and how long it lives.

use std::time::Instant;

use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;

use super::commitment::Finality;
use super::endpoints::{Endpoint, RecentBlockhash};
use super::error::ChainError;
use super::error_reason::{CallProblem, UnusableAnswer};

/// Blocks that a blockhash lives (`MAX_PROCESSING_AGE` of the runtime): the block of the blockhash has the height
/// `last_valid_block_height - BLOCKHASH_LIFE`.
pub const BLOCKHASH_LIFE: u64 = 150;

impl Endpoint {
    /// As confirmed: the newest may be on a fork that is dropped, and under Tower a final one has already lost 31 of its 150
    /// blocks.
    pub async fn recent_blockhash(&self) -> Result<RecentBlockhash, ChainError> {
        let asked_at = Instant::now();
        if let Some(shared) = self.last_blockhash().recent(asked_at) {
            return Ok(shared);
        }
        let _first = match self.last_blockhash().turn.try_lock() {
            Ok(first) => Some(first),
            // Another batch asks already. If its call fails, this one makes its own.
            Err(_) => {
                drop(self.last_blockhash().turn.lock().await);
                if let Some(shared) = self.last_blockhash().recent(Instant::now()) {
                    return Ok(shared);
                }
                None
            }
        };
        let request = RpcRequest::GetLatestBlockhash;
        let parameters = json!([self.commitment(Finality::Confirmed)]);
        let answer: Value = self.answer(self.hot().send(request, parameters).await)?;
        let Some(blockhash) = read(&answer) else {
            return Err(self.unusable(UnusableAnswer::Call {
                method: "getLatestBlockhash",
                problem: CallProblem::of_value(&answer["value"]),
            }));
        };
        self.last_blockhash().set(blockhash, asked_at);
        Ok(blockhash)
    }
}

/// The context's slot is that of the block whose hash it is, or a later one.
fn read(answer: &Value) -> Option<RecentBlockhash> {
    let value = &answer["value"];
    Some(RecentBlockhash {
        hash: value["blockhash"].as_str()?.parse().ok()?,
        slot: answer["context"]["slot"].as_u64()?,
        last_valid_block_height: value["lastValidBlockHeight"].as_u64()?,
    })
}

#[cfg(test)]
mod tests {
    use solana_sdk::hash::Hash;

    use super::*;

    #[test]
    fn an_answer_without_hash_slot_or_height_is_no_blockhash() {
        let whole = json!({
            "context": { "slot": 70 },
            "value": { "blockhash": Hash::default().to_string(), "lastValidBlockHeight": 200 },
        });
        let blockhash = read(&whole).unwrap();
        assert_eq!(
            (blockhash.slot, blockhash.last_valid_block_height),
            (70, 200)
        );
        for missing in [
            "/context/slot",
            "/value/blockhash",
            "/value/lastValidBlockHeight",
            "/value",
        ] {
            let mut answer = whole.clone();
            *answer.pointer_mut(missing).unwrap() = Value::Null;
            assert!(read(&answer).is_none(), "{missing}");
        }
        assert!(read(&Value::Null).is_none());
    }
}
