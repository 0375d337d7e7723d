use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use solana_sdk::hash::Hash;

use super::*;
use crate::chain::endpoints::Endpoints;
use crate::chain::history::finalized_blocks::SLOTS_PER_LIST_MAX;
use crate::domain::TxSignature;

/// What a node answers to `getBlock` instead of a block.
#[derive(Clone, Copy)]
enum Instead {
    Null,
    Error(i64),
}

#[derive(Default)]
struct Node {
    blocks: BTreeMap<u64, FinalizedBlock>,
    instead: HashMap<u64, Instead>,
    /// Listed, and without a block.
    also_listed: Vec<u64>,
    /// Every so many calls one is refused with 429.
    refuses_every: Option<u64>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    made: u64,
    /// Answers with a block, by slot.
    blocks: HashMap<u64, u32>,
}

impl Node {
    fn of(blocks: BTreeMap<u64, FinalizedBlock>) -> Node {
        Node {
            blocks,
            ..Node::default()
        }
    }

    /// How often each block was answered.
    fn times_read(&self) -> HashSet<u32> {
        let calls = self.calls.lock().unwrap();
        calls.blocks.values().copied().collect()
    }

    fn blocks_answered(&self) -> usize {
        self.calls.lock().unwrap().blocks.len()
    }

    fn result(&self, method: &str, call: &Value) -> Result<Value, i64> {
        let number = |index: usize| call["params"][index].as_u64().unwrap();
        Ok(match method {
            "getSlot" => json!(self.blocks.last_key_value().unwrap().0),
            "getBlocks" => {
                assert!(number(1) - number(0) <= SLOTS_PER_LIST_MAX);
                let listed = self.blocks.range(number(0)..=number(1));
                let also = self.also_listed.iter();
                let also = also.filter(|slot| (number(0)..=number(1)).contains(*slot));
                json!(listed.map(|(slot, _)| slot).chain(also).collect::<Vec<_>>())
            }
            "getBlock" => {
                assert_eq!(call["params"][1]["maxSupportedTransactionVersion"], 1);
                assert_eq!(call["params"][1]["commitment"], "finalized");
                match self.instead.get(&number(0)) {
                    Some(Instead::Null) => return Ok(Value::Null),
                    Some(Instead::Error(code)) => return Err(*code),
                    None => {}
                }
                let block = self.blocks.get(&number(0)).ok_or(-32_007)?;
                *self
                    .calls
                    .lock()
                    .unwrap()
                    .blocks
                    .entry(block.slot)
                    .or_default() += 1;
                json!({
                    "previousBlockhash": block.parent_hash.to_string(), "blockhash": block.hash.to_string(),
                    "parentSlot": block.parent_slot, "blockHeight": block.height,
                    "signatures": block.signatures, "blockTime": null,
                })
            }
            method => panic!("{method} is not expected"),
        })
    }
}

async fn answer(State(node): State<Arc<Node>>, Json(call): Json<Value>) -> Response {
    let made = {
        let mut calls = node.calls.lock().unwrap();
        calls.made += 1;
        calls.made
    };
    if node.refuses_every.is_some_and(|every| made % every == 0) {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response();
    }
    let id = call["id"].clone();
    let answer = match node.result(call["method"].as_str().unwrap(), &call) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(code) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": "no" } })
        }
    };
    Json(answer).into_response()
}

/// Scans what this node serves.
async fn with_endpoints<T>(node: &Arc<Node>, scan: impl AsyncFnOnce(Endpoints) -> T) -> T {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::clone(node));
    let endpoints = Endpoints::new(&[url], Duration::from_secs(5));
    tokio::select! {
        served = axum::serve(listener, router).into_future() => panic!("the node ended: {served:?}"),
        scanned = scan(endpoints) => scanned,
    }
}

/// A store in memory, which owns some signatures.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    runs: BlockRuns,
    ours: HashSet<TxSignature>,
    found: HashSet<TxSignature>,
    forgotten: u32,
    /// Another process writes first.
    is_stale: bool,
}

impl Memory {
    fn stored(&self) -> std::sync::MutexGuard<'_, Stored> {
        self.0.lock().unwrap()
    }

    fn runs(&self) -> BlockRuns {
        self.stored().runs.clone()
    }
}

impl RunStore for Memory {
    type Error = std::convert::Infallible;

    async fn save(
        &mut self,
        block: &FinalizedBlock,
        change: &RunChange,
    ) -> Result<Saved, Self::Error> {
        let mut stored = self.stored();
        if stored.is_stale {
            return Ok(Saved::Stale);
        }
        stored.runs.apply(change);
        let ours = stored.ours.clone();
        let found = block.signatures.iter().filter(|one| ours.contains(one));
        stored.found.extend(found);
        Ok(Saved::Stored)
    }

    async fn forget(&mut self) -> Result<(), Self::Error> {
        let mut stored = self.stored();
        stored.runs = BlockRuns::default();
        stored.forgotten += 1;
        Ok(())
    }
}

fn signature(number: u64) -> TxSignature {
    let mut bytes = [0; TxSignature::BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    TxSignature::from_bytes(bytes)
}

/// A chain whose blocks hold one signature each, of their slot; `gaps` are the slots from each block to the next.
fn chain(first_slot: u64, first_height: u64, gaps: &[u64]) -> BTreeMap<u64, FinalizedBlock> {
    let (mut slot, mut parent_slot) = (first_slot, first_slot - 1);
    let mut blocks = BTreeMap::new();
    for (height, gap) in (first_height..).zip(gaps) {
        let block = FinalizedBlock {
            signatures: vec![signature(slot)],
            ..FinalizedBlock::empty(slot, height, parent_slot)
        };
        blocks.insert(slot, block);
        parent_slot = slot;
        slot += gap;
    }
    blocks
}

fn life(slot: u64, last_valid_block_height: u64) -> BlockhashLife {
    BlockhashLife {
        slot,
        last_valid_block_height,
    }
}

/// Later than any scan of these tests ends.
fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

/// One scan for these lives, continued from what the store has.
async fn search(node: &Arc<Node>, store: &Memory, lives: &[BlockhashLife]) -> Vec<ScanOutcome> {
    with_endpoints(node, async |endpoints| {
        let mut scan = BlockScan::new(
            endpoints.preferred(),
            store.clone(),
            store.runs(),
            in_an_hour(),
        );
        let mut outcomes = Vec::new();
        for life in lives {
            outcomes.push(scan.search(life).await.unwrap());
        }
        outcomes
    })
    .await
}

/// How a scan ends that cannot go on.
async fn end_of_scan(node: &Arc<Node>, store: &Memory) -> ScanError<std::convert::Infallible> {
    with_endpoints(node, async |endpoints| {
        let mut scan = BlockScan::new(
            endpoints.preferred(),
            store.clone(),
            store.runs(),
            in_an_hour(),
        );
        scan.search(&life(10_000, 1_150)).await.unwrap_err()
    })
    .await
}

fn is_covered(outcome: &ScanOutcome) -> bool {
    matches!(outcome, ScanOutcome::Covered(_))
}

#[tokio::test]
async fn slots_without_blocks_leave_no_hole() {
    // In the middle of the transaction's life 30,000 slots pass without a block.
    let mut gaps = vec![1; 160];
    gaps[70] = 30_000;
    let node = Arc::new(Node::of(chain(10_000, 1_000, &gaps)));
    let store = Memory::default();
    store.stored().ours = [signature(10_071), signature(40_070)].into();
    let outcomes = search(&node, &store, &[life(10_005, 1_152)]).await;
    assert!(is_covered(&outcomes[0]), "{outcomes:?}");
    // It began at the block of the blockhash, height 1,002, and ended one above the last valid height.
    assert_eq!(node.blocks_answered(), 152);
    let found = store.stored().found.clone();
    assert_eq!(
        found,
        [signature(40_070)].into(),
        "slot 10,071 has no block"
    );
}

#[tokio::test]
async fn a_block_is_read_once_for_any_number_of_transactions_and_after_a_restart() {
    let node = Arc::new(Node::of(chain(10_000, 1_000, &[2; 600])));
    let store = Memory::default();
    // The latest one first, and last the one that joins its run with those of the earliest.
    let lives = [
        life(10_500, 1_400),
        life(10_100, 1_200),
        life(10_110, 1_204),
        life(10_496, 1_398),
        life(10_300, 1_300),
    ];
    let outcomes = search(&node, &store, &lives).await;
    assert!(outcomes.iter().all(is_covered), "{outcomes:?}");
    let again = search(&node, &store, &lives).await;
    assert!(again.iter().all(is_covered), "{again:?}");
    assert_eq!(node.times_read(), [1].into());
    assert_eq!(node.blocks_answered(), 352, "heights 1,050 to 1,401");
    // Only what is lacking is read for a life that reaches beyond.
    let outcomes = search(&node, &store, &[life(10_560, 1_430)]).await;
    assert!(is_covered(&outcomes[0]), "{outcomes:?}");
    assert_eq!(node.times_read(), [1].into());
    assert_eq!(node.blocks_answered(), 382);
}

#[tokio::test]
async fn a_scan_without_time_makes_its_first_calls_and_the_next_one_continues() {
    let node = Arc::new(Node::of(chain(10_000, 1_000, &[1; 160])));
    let store = Memory::default();
    let mut scans = 0;
    loop {
        scans += 1;
        let outcome = with_endpoints(&node, async |endpoints| {
            let (runs, now) = (store.runs(), Instant::now());
            let mut scan = BlockScan::new(endpoints.preferred(), store.clone(), runs, now);
            scan.search(&life(10_000, 1_150)).await.unwrap()
        })
        .await;
        match outcome {
            ScanOutcome::Unfinished => assert!(scans < 10),
            outcome => {
                assert!(is_covered(&outcome), "{outcome:?}");
                break;
            }
        }
    }
    // Each scan lists slots once or twice.
    assert_eq!(scans, 152_usize.div_ceil(CALLS_PER_SCAN_MIN - 1));
    assert_eq!(node.times_read(), [1].into());
}

#[tokio::test]
async fn a_rate_limit_costs_no_block() {
    let node = Arc::new(Node {
        refuses_every: Some(4),
        ..Node::of(chain(10_000, 1_000, &[1; 160]))
    });
    let store = Memory::default();
    let outcomes = search(&node, &store, &[life(10_000, 1_150)]).await;
    assert!(is_covered(&outcomes[0]), "{outcomes:?}");
    assert_eq!(node.times_read(), [1].into());
    assert_eq!(node.blocks_answered(), 152);
}

#[tokio::test]
async fn a_listed_slot_without_a_block_is_no_hole_if_the_next_block_names_the_earlier_one() {
    for instead in [
        Instead::Error(-32_004),
        Instead::Error(-32_007),
        Instead::Null,
    ] {
        let node = Arc::new(Node {
            also_listed: vec![10_003, 10_101, 10_201],
            instead: [10_003, 10_101, 10_201].map(|slot| (slot, instead)).into(),
            ..Node::of(chain(10_000, 1_000, &[2; 160]))
        });
        let outcomes = search(&node, &Memory::default(), &[life(10_003, 1_151)]).await;
        assert!(is_covered(&outcomes[0]), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_missing_block_prevents_the_proof_only_for_lives_that_span_it() {
    let mut node = Node::of(chain(10_000, 1_000, &[1; 480]));
    node.blocks.remove(&10_160);
    let node = Arc::new(node);
    let store = Memory::default();
    let lives = [
        life(10_000, 1_150),
        life(10_008, 1_158),
        life(10_009, 1_159),
        life(10_160, 1_310),
        life(10_161, 1_311),
        life(10_250, 1_400),
    ];
    let outcomes = search(&node, &store, &lives).await;
    let covered: Vec<bool> = outcomes.iter().map(is_covered).collect();
    assert_eq!(covered, [true, true, false, false, true, true]);
    let ScanOutcome::Blocked(NoProof::NotShown { slot: 10_160, .. }) = &outcomes[2] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(node.times_read(), [1].into());
}

#[tokio::test]
async fn a_node_without_the_oldest_blocks_proves_later_deaths() {
    let node = Arc::new(Node::of(chain(10_100, 1_100, &[1; 400])));
    let lives = [
        life(10_000, 1_150),
        life(10_120, 1_170),
        life(10_200, 1_350),
    ];
    let outcomes = search(&node, &Memory::default(), &lives).await;
    assert!(
        matches!(
            &outcomes[0],
            ScanOutcome::Blocked(NoProof::NoStart { slot: 10_000, .. })
        ),
        "{outcomes:?}"
    );
    // Its blockhash's own block is lacking.
    assert!(
        matches!(&outcomes[1], ScanOutcome::Blocked(_)),
        "{outcomes:?}"
    );
    assert!(is_covered(&outcomes[2]), "{outcomes:?}");
}

#[tokio::test]
async fn a_block_that_needs_a_newer_version_is_no_missing_block_and_no_proof() {
    let node = Arc::new(Node {
        instead: [(10_050, Instead::Error(-32_015))].into(),
        ..Node::of(chain(10_000, 1_000, &[1; 480]))
    });
    let lives = [life(10_000, 1_150), life(10_060, 1_210)];
    let outcomes = search(&node, &Memory::default(), &lives).await;
    assert!(
        matches!(
            &outcomes[0],
            ScanOutcome::Blocked(NoProof::NewerVersion { slot: 10_050, .. })
        ),
        "{outcomes:?}"
    );
    assert!(is_covered(&outcomes[1]), "{outcomes:?}");
}

#[tokio::test]
async fn a_node_that_is_not_beyond_the_life_proves_nothing_yet() {
    let node = Arc::new(Node::of(chain(10_000, 1_000, &[1; 153])));
    let lives = [life(10_002, 1_152), life(10_001, 1_151)];
    let outcomes = search(&node, &Memory::default(), &lives).await;
    assert_eq!(outcomes[0], ScanOutcome::NotYet);
    assert!(is_covered(&outcomes[1]), "{outcomes:?}");
}

#[tokio::test]
async fn what_contradicts_itself_is_forgotten() {
    let contradictions: [fn(&mut FinalizedBlock); 3] = [
        |block| block.height += 1,
        |block| block.hash = Hash::new_from_array([9; 32]),
        |block| block.parent_hash = Hash::new_from_array([9; 32]),
    ];
    for contradict in contradictions {
        let mut node = Node::of(chain(10_000, 1_000, &[1; 200]));
        contradict(node.blocks.get_mut(&10_090).unwrap());
        let (node, store) = (Arc::new(node), Memory::default());
        let ended = end_of_scan(&node, &store).await;
        assert!(matches!(ended, ScanError::Contradiction(_)), "{ended:?}");
        assert_eq!(store.stored().forgotten, 1);
        assert_eq!(store.runs(), BlockRuns::default());
    }
}

#[tokio::test]
async fn a_block_without_the_hash_of_its_parent_is_no_proof() {
    let mut node = Node::of(chain(10_000, 1_000, &[1; 200]));
    // What a node shows that has dropped the parent.
    node.blocks.get_mut(&10_090).unwrap().parent_hash = Hash::default();
    let store = Memory::default();
    let outcomes = search(&Arc::new(node), &store, &[life(10_000, 1_150)]).await;
    assert!(
        matches!(
            &outcomes[0],
            ScanOutcome::Blocked(NoProof::NotShown { slot: 10_090, .. })
        ),
        "{outcomes:?}"
    );
    assert_eq!(store.stored().forgotten, 0);
}

#[tokio::test]
async fn a_scan_ends_when_another_process_reads_the_same_blocks() {
    let node = Arc::new(Node::of(chain(10_000, 1_000, &[1; 200])));
    let store = Memory::default();
    store.stored().is_stale = true;
    let ended = end_of_scan(&node, &store).await;
    assert!(matches!(ended, ScanError::Stale), "{ended:?}");
    assert_eq!(node.blocks_answered(), 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_such_calls_ends_the_scan() {
    let node = Arc::new(Node {
        instead: (10_000..10_300)
            .map(|slot| (slot, Instead::Error(-32_601)))
            .collect(),
        ..Node::of(chain(10_000, 1_000, &[1; 200]))
    });
    let ended = end_of_scan(&node, &Memory::default()).await;
    assert!(matches!(ended, ScanError::Endpoint(_)), "{ended:?}");
}
