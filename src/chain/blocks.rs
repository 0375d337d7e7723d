//! The finalized blocks themselves: the only proof that a transaction did not land.
//!
//! "Not found" from a status call proves nothing: a node may lag, may have pruned its history, may be one of a mixed
//! pool. What proves is an unbroken chain of finalized blocks over the whole life of the transaction's blockhash, each
//! block naming the one before it as its parent, none holding the signature. A hole is no proof.

use std::collections::HashSet;

use solana_client::rpc_config::RpcBlockConfig;
use solana_commitment_config::CommitmentConfig;
use solana_transaction_status::{TransactionDetails, UiConfirmedBlock, UiTransactionEncoding};
use thiserror::Error;

use super::blockhash::BLOCKHASH_LIFE;
use super::{ChainError, Endpoint};

/// Finalized blocks that were read in their order: one unbroken run, or several with holes between.
#[derive(Debug, Default)]
pub struct BlockScan {
    runs: Vec<Run>,
    /// Why a run ended before the scan did: the first time.
    broken: Option<NoProof>,
}

impl BlockScan {
    /// Whether it is proven that a transaction with this signature (base58), signed on a blockhash with this last valid height,
    /// is in no block: one run without a hole spans its whole life, and no run holds it.
    pub fn proves_absent(&self, signature: &str, last_valid_block_height: u64) -> bool {
        self.runs
            .iter()
            .any(|run| run.covers(last_valid_block_height))
            && !self.runs.iter().any(|run| run.holds(signature))
    }

    /// The first hole, if there is one.
    pub fn broken(&self) -> Option<&NoProof> {
        self.broken.as_ref()
    }
}

/// Blocks that each name the one before as their parent, and every signature in them.
#[derive(Debug)]
struct Run {
    first_height: u64,
    last_height: u64,
    last_slot: u64,
    signatures: HashSet<String>,
}

/// A block does not name the one before it as its parent.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    parent: u64,
    previous: u64,
}

impl Run {
    fn from(slot: u64, block: Block) -> Run {
        Run {
            first_height: block.height,
            last_height: block.height,
            last_slot: slot,
            signatures: block.signatures.into_iter().collect(),
        }
    }

    /// Goes on with a later block; gives it back if it does not follow the last one.
    fn follow(&mut self, slot: u64, block: Block) -> Result<(), (Gap, Block)> {
        if block.parent_slot != self.last_slot {
            let gap = Gap {
                parent: block.parent_slot,
                previous: self.last_slot,
            };
            return Err((gap, block));
        }
        self.last_height = block.height;
        self.last_slot = slot;
        self.signatures.extend(block.signatures);
        Ok(())
    }

    /// Whether these blocks span the whole life of a blockhash with this last valid height.
    ///
    /// The block one above that height belongs to it: a node calls a blockhash valid while its own newest block has at most
    /// the last valid height, and the next block may hold the transaction (the runtime looks at 151 hashes).
    fn covers(&self, last_valid_block_height: u64) -> bool {
        self.first_height + BLOCKHASH_LIFE <= last_valid_block_height
            && self.last_height > last_valid_block_height
    }

    fn holds(&self, signature: &str) -> bool {
        self.signatures.contains(signature)
    }
}

/// Why there is no proof yet.
#[derive(Debug, Error)]
pub enum NoProof {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("RPC endpoint {endpoint}: finalized height {height} has not passed {needed}")]
    TooEarly {
        endpoint: String,
        height: u64,
        needed: u64,
    },
    #[error(
        "RPC endpoint {endpoint}: no finalized block at or below slot {slot} that is old enough"
    )]
    NoStart { endpoint: String, slot: u64 },
    #[error(
        "RPC endpoint {endpoint}: the chain of blocks breaks at slot {slot}: its parent is {parent}, before it came {previous}"
    )]
    Hole {
        endpoint: String,
        slot: u64,
        parent: u64,
        previous: u64,
    },
    #[error("RPC endpoint {endpoint}: block {slot} came without height or signatures")]
    Incomplete { endpoint: String, slot: u64 },
}

impl NoProof {
    /// Whether the endpoint answered, and this one block is all that it did not show.
    fn is_missing_block(&self) -> bool {
        matches!(
            self,
            NoProof::Chain(ChainError::Answered { .. }) | NoProof::Incomplete { .. }
        )
    }
}

/// Slots asked for in one `getBlocks`; skipped slots make it more than the blocks that come back.
const SLOTS_PER_LIST: u64 = 400;
/// What `getBlocks` takes at most.
const SLOTS_PER_LIST_MAX: u64 = 500_000;
/// How far before the blockhash's slot the first block may be sought.
const LOOK_BACK_SLOTS: u64 = 2_000;
/// Blocks read in one scan at most: bounds memory; transactions further on are proven by the next scan.
const BLOCKS_PER_SCAN: usize = 1_500;

/// Blocks that an endpoint lists but does not show, one after the other, before it is taken for one without history.
const MISSING_IN_A_ROW_MAX: u32 = 8;

/// Reads the finalized blocks from the newest one at or below `from_slot` that is old enough for the oldest
/// blockhash (`lowest_last_valid_height`), up to one above `beyond_height`. A hole ends a run and begins another: what lived
/// before or after it can still be proven.
pub async fn scan_blocks(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
    beyond_height: u64,
) -> Result<BlockScan, NoProof> {
    let height = endpoint.finalized_height().await?;
    if height <= beyond_height {
        return Err(NoProof::TooEarly {
            endpoint: endpoint.name().to_owned(),
            height,
            needed: beyond_height,
        });
    }
    let mut scan = BlockScan::default();
    let mut slot = from_slot;
    match first_block(endpoint, from_slot, lowest_last_valid_height).await {
        Ok((first_slot, first)) => {
            slot = first_slot;
            scan.runs.push(Run::from(first_slot, first));
        }
        // The oldest cannot be proven dead, later ones can.
        Err(no_start @ NoProof::NoStart { .. }) => scan.broken = Some(no_start),
        Err(no_proof) => return Err(no_proof),
    }
    let (mut blocks, mut missing, mut is_whole) = (0, 0, !scan.runs.is_empty());
    while blocks < BLOCKS_PER_SCAN {
        let slots = slots_after(endpoint, slot).await?;
        if slots.is_empty() {
            return Err(NoProof::TooEarly {
                endpoint: endpoint.name().to_owned(),
                height,
                needed: beyond_height,
            });
        }
        for listed in slots {
            slot = listed;
            blocks += 1;
            let block = match read_block(endpoint, slot).await {
                Ok(block) => block,
                Err(error) if error.is_missing_block() && missing < MISSING_IN_A_ROW_MAX => {
                    missing += 1;
                    is_whole = false;
                    scan.broken.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            missing = 0;
            let height = block.height;
            scan.add(endpoint, slot, block, is_whole);
            is_whole = true;
            if height > beyond_height {
                return Ok(scan);
            }
        }
    }
    Ok(scan)
}

impl BlockScan {
    /// Goes on with the last run if that is whole and the block follows it, else begins another.
    fn add(&mut self, endpoint: &Endpoint, slot: u64, block: Block, is_whole: bool) {
        let followed = match self.runs.last_mut() {
            Some(run) if is_whole => run.follow(slot, block),
            _ => {
                self.runs.push(Run::from(slot, block));
                return;
            }
        };
        if let Err((gap, block)) = followed {
            self.broken.get_or_insert(NoProof::Hole {
                endpoint: endpoint.name().to_owned(),
                slot,
                parent: gap.parent,
                previous: gap.previous,
            });
            self.runs.push(Run::from(slot, block));
        }
    }
}

/// Slots of the blocks that come after this one. Where whole stretches of slots were skipped (a cluster that stood still), the
/// list is asked for further on: the parent of the block that is found tells whether there was one between.
async fn slots_after(endpoint: &Endpoint, slot: u64) -> Result<Vec<u64>, ChainError> {
    let mut first = slot + 1;
    let mut length = SLOTS_PER_LIST;
    loop {
        let slots = finalized_slots(endpoint, first, first + length - 1).await?;
        let newest = first + length - 1;
        if !slots.is_empty() || newest >= endpoint.finalized_slot().await? {
            return Ok(slots);
        }
        first = newest + 1;
        length = (length * 4).min(SLOTS_PER_LIST_MAX);
    }
}

#[derive(Clone, Debug)]
struct Block {
    height: u64,
    parent_slot: u64,
    signatures: Vec<String>,
}

/// The newest finalized block at or below the slot whose height shows that it is not after the blockhash's own block.
async fn first_block(
    endpoint: &Endpoint,
    from_slot: u64,
    lowest_last_valid_height: u64,
) -> Result<(u64, Block), NoProof> {
    let oldest = from_slot.saturating_sub(LOOK_BACK_SLOTS);
    let slots = finalized_slots(endpoint, oldest, from_slot).await?;
    let mut missing = 0;
    for slot in slots.into_iter().rev() {
        let block = match read_block(endpoint, slot).await {
            Ok(block) => block,
            // An older one will do; the hole shows when the scan comes to it.
            Err(error) if error.is_missing_block() && missing < MISSING_IN_A_ROW_MAX => {
                missing += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        if block.height + BLOCKHASH_LIFE <= lowest_last_valid_height {
            return Ok((slot, block));
        }
    }
    Err(NoProof::NoStart {
        endpoint: endpoint.name().to_owned(),
        slot: from_slot,
    })
}

async fn finalized_slots(
    endpoint: &Endpoint,
    first: u64,
    last: u64,
) -> Result<Vec<u64>, ChainError> {
    endpoint
        .rpc()
        .get_blocks_with_commitment(first, Some(last), CommitmentConfig::finalized())
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))
}

async fn read_block(endpoint: &Endpoint, slot: u64) -> Result<Block, NoProof> {
    let config = RpcBlockConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        transaction_details: Some(TransactionDetails::Signatures),
        rewards: Some(false),
        commitment: Some(CommitmentConfig::finalized()),
        max_supported_transaction_version: Some(0),
    };
    let block: UiConfirmedBlock = endpoint
        .rpc()
        .get_block_with_config(slot, config)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    match (block.block_height, block.signatures) {
        (Some(height), Some(signatures)) => Ok(Block {
            height,
            parent_slot: block.parent_slot,
            signatures,
        }),
        _ => Err(NoProof::Incomplete {
            endpoint: endpoint.name().to_owned(),
            slot,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::extract::State;
    use axum::{Json, Router};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::chain::Endpoints;

    /// A chain of blocks with one signature each, named after its slot; `gaps` are the slots from each block to the next.
    fn chain(first_slot: u64, first_height: u64, gaps: &[u64]) -> BTreeMap<u64, Block> {
        let mut blocks = BTreeMap::new();
        let (mut slot, mut parent_slot) = (first_slot, first_slot - 1);
        for (index, gap) in gaps.iter().enumerate() {
            let block = Block {
                height: first_height + index as u64,
                parent_slot,
                signatures: vec![format!("in {slot}")],
            };
            blocks.insert(slot, block);
            parent_slot = slot;
            slot += gap;
        }
        blocks
    }

    /// Scans what a node shows, as [`scan_blocks`] does.
    fn scanned(shown: &BTreeMap<u64, Block>) -> BlockScan {
        let endpoints = Endpoints::new(&["http://127.0.0.1:1".to_owned()], Duration::ZERO);
        let mut scan = BlockScan::default();
        for (slot, block) in shown {
            scan.add(endpoints.preferred(), *slot, block.clone(), true);
        }
        scan
    }

    proptest! {
        /// Whatever blocks a node lacks: what it proves absent is in no block of the whole chain that could hold it.
        #[test]
        fn what_is_proven_absent_is_in_no_block_of_its_life(
            gaps in prop::collection::vec(prop_oneof![9 => 1_u64..6, 1 => 300_u64..3_000], 140..480),
            lacks in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            held_at in any::<prop::sample::Index>(),
            last_valid_block_height in 1_150_u64..1_470,
        ) {
            let whole = chain(5_000, 1_000, &gaps);
            let mut shown = whole.clone();
            for lack in lacks {
                let slots: Vec<u64> = shown.keys().copied().collect();
                shown.remove(lack.get(&slots));
            }
            let heights: Vec<(u64, u64)> = whole.iter().map(|(slot, block)| (*slot, block.height)).collect();
            let (slot, height) = *held_at.get(&heights);
            let life = last_valid_block_height - BLOCKHASH_LIFE + 1..=last_valid_block_height + 1;
            let scan = scanned(&shown);
            if life.contains(&height) {
                prop_assert!(!scan.proves_absent(&format!("in {slot}"), last_valid_block_height), "height {height}");
            }
            // And where nothing is lacking, what landed nowhere is proven.
            let needed = last_valid_block_height - BLOCKHASH_LIFE..=last_valid_block_height + 1;
            let is_shown = |height| whole.iter().any(|(slot, block)| block.height == height && shown.contains_key(slot));
            prop_assert_eq!(scan.proves_absent("nowhere", last_valid_block_height), needed.into_iter().all(is_shown));
        }
    }

    #[test]
    fn a_life_is_its_own_blockhash_and_151_blocks() {
        let blocks = chain(5_000, 1_000, &[2; 152]);
        let scan = scanned(&blocks);
        assert!(scan.proves_absent("nowhere", 1_150));
        assert!(
            !scan.proves_absent("nowhere", 1_149),
            "the blockhash's own block is missing"
        );
        assert!(
            !scan.proves_absent("nowhere", 1_151),
            "the last block is missing"
        );
        let in_the_last = format!("in {}", blocks.last_key_value().unwrap().0);
        assert!(!scan.proves_absent(&in_the_last, 1_150));
    }

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
            method => panic!("{method} is not asked"),
        };
        Json(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
    }

    #[tokio::test]
    async fn a_cluster_that_stood_still_leaves_no_hole() {
        // In the middle of the transaction's life 30,000 slots pass without a block.
        let mut gaps = vec![1; 160];
        gaps[70] = 30_000;
        let blocks = chain(10_000, 1_000, &gaps);
        let (endpoints, node) = node(blocks).await;
        let scan = scan_blocks(endpoints.preferred(), 10_005, 1_152, 1_152)
            .await
            .unwrap();
        assert!(scan.broken().is_none());
        assert!(scan.proves_absent("nowhere", 1_152));
        assert!(!scan.proves_absent("in 10070", 1_152) && !scan.proves_absent("in 40070", 1_152));
        // It began at the newest block at or below the slot that is old enough: of height 1,002.
        assert!(!scan.proves_absent("in 10002", 1_152) && scan.proves_absent("in 10001", 1_152));
        node.abort();
    }

    #[tokio::test]
    async fn a_hole_hides_what_lived_across_it_and_nothing_else() {
        let mut blocks = chain(10_000, 1_000, &[1; 480]);
        blocks.remove(&10_160);
        let (endpoints, node) = node(blocks).await;
        let scan = scan_blocks(endpoints.preferred(), 10_000, 1_150, 1_400)
            .await
            .unwrap();
        assert!(matches!(
            scan.broken(),
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
        assert!(matches!(scan.broken(), Some(NoProof::NoStart { .. })));
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
