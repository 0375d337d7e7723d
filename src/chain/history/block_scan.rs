//! Scans finalized blocks: the only proof that a transaction did not land.
//!
//! "Not found" from a status call proves nothing: a node may lag, may have pruned its history, may be one of a mixed pool. Proof
//! is an unbroken chain of finalized blocks over the whole life of the transaction's blockhash, none of which holds the
//! signature ([`super::block_run`]).

use super::block_run::BlockScan;
use super::finalized_blocks::{MISSING_IN_A_ROW_MAX, first_block, read_block, slots_after};
use super::no_proof::NoProof;
use crate::chain::endpoints::Endpoint;

/// Blocks read in one scan at most: bounds memory; transactions further on are proven by the next scan.
const BLOCKS_PER_SCAN: usize = 1_500;

/// Reads the finalized blocks from the newest one at or below `from_slot` that is old enough for the oldest blockhash
/// (`lowest_last_valid_height`), up to one above `beyond_height`. A hole ends a run and begins another: a life that lies before
/// or after the hole can still be proven.
pub async fn scan_blocks(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
    beyond_height: u64,
) -> Result<BlockScan, NoProof> {
    let height = endpoint.finalized_height().await?;
    let too_early = || NoProof::TooEarly {
        endpoint: endpoint.name().to_owned(),
        height,
        needed: beyond_height,
    };
    if height <= beyond_height {
        return Err(too_early());
    }
    let mut scan = BlockScan::default();
    let mut slot = from_slot;
    match first_block(endpoint, from_slot, lowest_last_valid_height).await {
        Ok((first_slot, first)) => {
            slot = first_slot;
            scan.add(endpoint.name(), first_slot, first);
        }
        // The oldest cannot be proven dead, later ones can.
        Err(no_start @ NoProof::NoStart { .. }) => scan.note_missing(no_start),
        Err(no_proof) => return Err(no_proof),
    }
    let (mut blocks, mut missing) = (0, 0);
    while blocks < BLOCKS_PER_SCAN {
        let slots = slots_after(endpoint, slot).await?;
        if slots.is_empty() {
            return Err(too_early());
        }
        for listed in slots {
            slot = listed;
            blocks += 1;
            let block = match read_block(endpoint, slot).await {
                Ok(block) => block,
                Err(error) if error.is_missing_block() && missing < MISSING_IN_A_ROW_MAX => {
                    missing += 1;
                    scan.note_missing(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            missing = 0;
            let height = block.height;
            scan.add(endpoint.name(), slot, block);
            if height > beyond_height {
                return Ok(scan);
            }
        }
    }
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::extract::State;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;
    use crate::chain::endpoints::Endpoints;
    use crate::chain::history::block_run::tests::chain;
    use crate::chain::history::finalized_blocks::{Block, SLOTS_PER_LIST_MAX};

    /// A node that shows these blocks; a list may span no more slots than nodes allow.
    async fn node(blocks: BTreeMap<u64, Block>) -> (Endpoints, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::new(blocks));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (Endpoints::new(&[url], Duration::from_secs(5)), task)
    }

    async fn answer(
        State(blocks): State<Arc<BTreeMap<u64, Block>>>,
        Json(call): Json<Value>,
    ) -> Json<Value> {
        let number = |index: usize| call["params"][index].as_u64().unwrap();
        let result = match call["method"].as_str().unwrap() {
            "getBlockHeight" => json!(blocks.last_key_value().unwrap().1.height),
            "getSlot" => json!(blocks.last_key_value().unwrap().0),
            "getBlocks" => {
                assert!(number(1) - number(0) <= SLOTS_PER_LIST_MAX);
                let listed = blocks.range(number(0)..=number(1));
                json!(listed.map(|(slot, _)| *slot).collect::<Vec<_>>())
            }
            "getBlock" => {
                let block = &blocks[&number(0)];
                json!({
                    "previousBlockhash": "", "blockhash": "", "parentSlot": block.parent_slot,
                    "blockHeight": block.height, "signatures": block.signatures, "blockTime": null,
                })
            }
            method => panic!("{method} is not expected"),
        };
        Json(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
    }

    #[tokio::test]
    async fn slots_without_blocks_leave_no_hole() {
        // In the middle of the transaction's life 30,000 slots pass without a block.
        let mut gaps = vec![1; 160];
        gaps[70] = 30_000;
        let blocks = chain(10_000, 1_000, &gaps);
        let (endpoints, node) = node(blocks).await;
        let scan = scan_blocks(endpoints.preferred(), 10_005, 1_152, 1_152)
            .await
            .unwrap();
        assert!(scan.first_hole().is_none());
        assert!(scan.proves_absent("nowhere", 1_152));
        assert!(!scan.proves_absent("in 10070", 1_152) && !scan.proves_absent("in 40070", 1_152));
        // It began at the newest block at or below the slot that is old enough: of height 1,002.
        assert!(!scan.proves_absent("in 10002", 1_152) && scan.proves_absent("in 10001", 1_152));
        node.abort();
    }

    #[tokio::test]
    async fn a_hole_prevents_the_proof_only_for_lives_that_span_it() {
        let mut blocks = chain(10_000, 1_000, &[1; 480]);
        blocks.remove(&10_160);
        let (endpoints, node) = node(blocks).await;
        let scan = scan_blocks(endpoints.preferred(), 10_000, 1_150, 1_400)
            .await
            .unwrap();
        assert!(matches!(
            scan.first_hole(),
            Some(NoProof::Hole {
                slot: 10_161,
                parent: 10_160,
                previous: 10_159,
                ..
            })
        ));
        for (last_valid_block_height, expected) in [
            (1_150, true),
            (1_158, true),
            (1_159, false),
            (1_310, false),
            (1_311, true),
            (1_400, true),
        ] {
            let proven = scan.proves_absent("nowhere", last_valid_block_height);
            assert_eq!(proven, expected, "{last_valid_block_height}");
        }
        node.abort();
    }

    #[tokio::test]
    async fn a_node_without_the_oldest_blocks_proves_later_deaths() {
        let (endpoints, node) = node(chain(10_100, 1_100, &[1; 400])).await;
        let scan = scan_blocks(endpoints.preferred(), 10_000, 1_150, 1_400)
            .await
            .unwrap();
        assert!(matches!(scan.first_hole(), Some(NoProof::NoStart { .. })));
        assert!(!scan.proves_absent("nowhere", 1_150));
        assert!(scan.proves_absent("nowhere", 1_250));
        node.abort();
    }

    #[tokio::test]
    async fn a_node_that_is_not_beyond_the_life_proves_nothing() {
        let (endpoints, node) = node(chain(10_000, 1_000, &[1; 153])).await;
        let at_its_end = scan_blocks(endpoints.preferred(), 10_005, 1_152, 1_152).await;
        assert!(matches!(at_its_end, Err(NoProof::TooEarly { .. })));
        let beyond = scan_blocks(endpoints.preferred(), 10_005, 1_151, 1_151).await;
        assert!(beyond.unwrap().proves_absent("nowhere", 1_151));
        node.abort();
    }
}
