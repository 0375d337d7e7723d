//! Finalized blocks as an endpoint lists and shows them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::{Value, json};
use solana_client::client_error::Result as ClientResult;
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_BLOCK_CLEANED_UP, JSON_RPC_SERVER_ERROR_BLOCK_NOT_AVAILABLE,
    JSON_RPC_SERVER_ERROR_BLOCK_STATUS_NOT_AVAILABLE_YET,
    JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_SLOT_SKIPPED, JSON_RPC_SERVER_ERROR_SLOT_SKIPPED,
    JSON_RPC_SERVER_ERROR_UNSUPPORTED_TRANSACTION_VERSION,
};
use solana_client::rpc_request::RpcRequest;
use solana_sdk::hash::Hash;

use super::block_run::LOOK_BACK_SLOTS;
use super::finalized_block::FinalizedBlock;
use super::no_proof::NoProof;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::{CallProblem, UnusableAnswer};
use crate::domain::{NEWEST_TRANSACTION_VERSION, TxSignature};

/// Slots requested in one `getBlocks`; fewer blocks are returned where slots were skipped.
const SLOTS_PER_LIST: u64 = 400;
/// Slots that `getBlocks` takes at most.
pub(super) const SLOTS_PER_LIST_MAX: u64 = 500_000;

/// Slots of the blocks that come after this one, lowest first; none when it is the newest finalized one. Where many slots in a
/// row were skipped (a cluster that stood still), the list is requested further on: the parent of the block that is found
/// shows whether there was one between.
pub(super) async fn slots_after(endpoint: &Endpoint, slot: u64) -> Result<Vec<u64>, ChainError> {
    let mut first = slot + 1;
    let mut length = SLOTS_PER_LIST;
    loop {
        let newest = first + length - 1;
        let slots = finalized_slots(endpoint, first, newest).await?;
        if !slots.is_empty() || newest >= endpoint.finalized_slot().await? {
            return Ok(slots);
        }
        first = newest + 1;
        length = (length * 4).min(SLOTS_PER_LIST_MAX);
    }
}

/// Slots of the blocks at or shortly below this one, lowest first.
pub(super) async fn slots_up_to(endpoint: &Endpoint, slot: u64) -> Result<Vec<u64>, ChainError> {
    finalized_slots(endpoint, slot.saturating_sub(LOOK_BACK_SLOTS), slot).await
}

async fn finalized_slots(
    endpoint: &Endpoint,
    first: u64,
    last: u64,
) -> Result<Vec<u64>, ChainError> {
    let slots = endpoint
        .background()
        .get_blocks_with_commitment(first, Some(last), endpoint.commitment(Finality::Final))
        .await;
    let mut slots = endpoint.answer(slots)?;
    slots.retain(|slot| (first..=last).contains(slot));
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}

/// Height of the block at this finalized slot. From the block itself: of two calls for slot and height, another node of a pool may
/// answer the second.
pub async fn height_of_block(endpoint: &Endpoint, slot: u64) -> Result<u64, ChainError> {
    let config = json!({
        "transactionDetails": "none",
        "rewards": false,
        "commitment": endpoint.commitment(Finality::Final).commitment,
        "maxSupportedTransactionVersion": NEWEST_TRANSACTION_VERSION,
    });
    let answer: Value = endpoint.answer(
        endpoint
            .background()
            .send(RpcRequest::GetBlock, json!([slot, config]))
            .await,
    )?;
    answer["blockHeight"].as_u64().ok_or_else(|| {
        endpoint.unusable(UnusableAnswer::Call {
            method: "getBlock",
            problem: CallProblem::of_value(&answer),
        })
    })
}

/// Reads one block. [`NoProof::NotShown`] and [`NoProof::NewerVersion`] concern this block alone, every other error the endpoint.
pub(super) async fn read_block(endpoint: &Endpoint, slot: u64) -> Result<FinalizedBlock, NoProof> {
    let config = json!({
        "transactionDetails": "signatures",
        "rewards": false,
        "commitment": endpoint.commitment(Finality::Final).commitment,
        "maxSupportedTransactionVersion": NEWEST_TRANSACTION_VERSION,
    });
    let parameters = json!([slot, config]);
    let block: ClientResult<Option<BlockAnswer>> = endpoint
        .background()
        .send(RpcRequest::GetBlock, parameters)
        .await;
    let not_shown = |answer| NoProof::NotShown {
        endpoint: endpoint.name().to_owned(),
        slot,
        answer,
    };
    let block = match endpoint.answer(block) {
        Ok(Some(block)) => block,
        Ok(None) => return Err(not_shown("null")),
        Err(ChainError::ErrorResponse { code, endpoint, .. })
            if code == JSON_RPC_SERVER_ERROR_UNSUPPORTED_TRANSACTION_VERSION =>
        {
            return Err(NoProof::NewerVersion { endpoint, slot });
        }
        Err(error) => return Err(missing(&error).map_or_else(|| error.into(), not_shown)),
    };
    let (Some(height), Some(Signatures(signatures))) = (block.block_height, block.signatures)
    else {
        return Err(not_shown("it came without height or signatures"));
    };
    let (Some(hash), Some(parent_hash)) = (shown(block.blockhash), shown(block.previous_blockhash))
    else {
        return Err(not_shown("it came without its hash or that of its parent"));
    };
    Ok(FinalizedBlock {
        slot,
        height,
        hash,
        parent_slot: block.parent_slot,
        parent_hash,
        signatures,
    })
}

/// A node that has dropped the parent shows zeros as its hash.
fn shown(hash: Option<String>) -> Option<Hash> {
    let hash = hash?.parse().ok()?;
    (hash != Hash::default()).then_some(hash)
}

/// The errors with which nodes answer that they do not have a block, in words.
fn missing(error: &ChainError) -> Option<&'static str> {
    let ChainError::ErrorResponse { code, .. } = error else {
        return None;
    };
    match *code {
        JSON_RPC_SERVER_ERROR_BLOCK_CLEANED_UP => Some("cleaned up"),
        JSON_RPC_SERVER_ERROR_BLOCK_NOT_AVAILABLE
        | JSON_RPC_SERVER_ERROR_BLOCK_STATUS_NOT_AVAILABLE_YET => Some("not available"),
        JSON_RPC_SERVER_ERROR_SLOT_SKIPPED => Some("skipped or missing"),
        JSON_RPC_SERVER_ERROR_LONG_TERM_STORAGE_SLOT_SKIPPED => {
            Some("skipped or missing in long-term storage")
        }
        _ => None,
    }
}

/// The members of an answer to `getBlock` that are read. The others are ignored, so an answer of a later node is read too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockAnswer {
    block_height: Option<u64>,
    blockhash: Option<String>,
    parent_slot: u64,
    previous_blockhash: Option<String>,
    signatures: Option<Signatures>,
}

/// A block may list several thousand: each text of 88 characters becomes its 64 bytes at once.
struct Signatures(Vec<TxSignature>);

impl<'de> Deserialize<'de> for Signatures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Signatures, D::Error> {
        struct Parse;

        impl<'de> Visitor<'de> for Parse {
            type Value = Signatures;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of signatures in base58")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Signatures, A::Error> {
                let mut signatures = Vec::with_capacity(list.size_hint().unwrap_or_default());
                while let Some(text) = list.next_element::<String>()? {
                    signatures.push(text.parse().map_err(A::Error::custom)?);
                }
                Ok(Signatures(signatures))
            }
        }

        deserializer.deserialize_seq(Parse)
    }
}
