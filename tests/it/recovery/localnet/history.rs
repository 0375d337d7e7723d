//! Checks the history that a chain reports.

use std::collections::{BTreeMap, HashMap, HashSet};

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_config::RpcBlockConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::signature::Signature;
use solana_transaction_status::{TransactionDetails, UiConfirmedBlock, UiTransactionEncoding};

pub async fn block(client: &RpcClient, slot: u64) -> UiConfirmedBlock {
    let config = RpcBlockConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        transaction_details: Some(TransactionDetails::Signatures),
        rewards: Some(false),
        commitment: Some(CommitmentConfig::confirmed()),
        max_supported_transaction_version: Some(1),
    };
    let block = client.get_block_with_config(slot, config).await;
    block.unwrap_or_else(|error| panic!("block of slot {slot}: {error}"))
}

/// Walks the blocks of `first..=last`: each names the one before, heights and times grow. Returns where each
/// signature is.
pub async fn walk(client: &RpcClient, first: u64, last: u64) -> BTreeMap<u64, Vec<String>> {
    let slots = client
        .get_blocks_with_commitment(first, Some(last), CommitmentConfig::confirmed())
        .await
        .unwrap();
    assert_eq!(slots, (first..=last).collect::<Vec<_>>(), "getBlocks");
    let mut signatures = BTreeMap::new();
    let mut before: Option<UiConfirmedBlock> = None;
    for slot in slots {
        let block = block(client, slot).await;
        assert_eq!(block.parent_slot, slot.saturating_sub(1));
        if let Some(before) = &before {
            assert_eq!(block.previous_blockhash, before.blockhash, "slot {slot}");
            assert_eq!(block.block_height, before.block_height.map(|it| it + 1));
            assert!(block.block_time >= before.block_time, "slot {slot}");
        }
        signatures.insert(slot, block.signatures.clone().unwrap());
        before = Some(block);
    }
    signatures
}

/// Which of `sent` landed, with the sum of their amounts.
pub async fn landed(client: &RpcClient, sent: &HashMap<Signature, u64>) -> (HashSet<String>, u64) {
    let signatures: Vec<_> = sent.keys().copied().collect();
    let (mut landed, mut sum) = (HashSet::new(), 0);
    for some in signatures.chunks(256) {
        let statuses = client
            .get_signature_statuses_with_history(some)
            .await
            .unwrap()
            .value;
        for (signature, status) in some.iter().zip(statuses) {
            if let Some(status) = status {
                assert_eq!(status.err, None);
                landed.insert(signature.to_string());
                sum += sent[signature];
            }
        }
    }
    (landed, sum)
}

pub async fn times_of_blocks(client: &RpcClient, first: u64, last: u64) -> Vec<i64> {
    let mut times = Vec::new();
    for slot in first..=last {
        times.push(client.get_block_time(slot).await.unwrap());
    }
    times
}
