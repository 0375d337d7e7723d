//! Background work never takes from minting: it has its own budget and pause. Few calls are made while nothing happens, and
//! few for each transaction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gridtokenx::chain::{Endpoints, PROBE_EVERY, PROBE_IDLE_EVERY};
use gridtokenx::ledger;
use serde_json::Value;

use crate::support::chain_breaker::chain_of;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

const LIMIT: Duration = Duration::from_secs(10);
/// Chain, consensus, charges and capabilities, each queried every ten minutes or more rarely.
const RARE_CALLS_MAX: u64 = 12;

/// The only endpoint on the status page.
async fn endpoint(grid: &Grid) -> Value {
    chain_of(&grid.admin()).await["endpoints"][0].clone()
}

/// Calls by method, as a proxy counts them.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counted {
    fn on(proxy: &Proxy) -> Counted {
        let counted = Counted::default();
        let calls = counted.clone();
        proxy.on_call(move |method, _| {
            *calls
                .0
                .lock()
                .unwrap()
                .entry(method.to_owned())
                .or_default() += 1;
            CallAction::Forward
        });
        counted
    }

    /// Those since the last time.
    fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn sum(calls: &BTreeMap<String, u64>) -> u64 {
    calls.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_look_up_waits_in_place_while_minting_goes_on() {
    const PAUSE: Duration = Duration::from_secs(3);
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    // Registering a meter queries its wallet's account: a background call.
    let refused = Arc::new(AtomicU64::new(0));
    let refusals = Arc::clone(&refused);
    proxy.on_call(move |method, _| {
        if method == "getAccountInfo" && refusals.fetch_add(1, Ordering::SeqCst) == 0 {
            return CallAction::RetryAfter {
                status: 429,
                secs: PAUSE.as_secs(),
            };
        }
        CallAction::Forward
    });
    let began = Instant::now();
    let registering = async {
        grid.meter().await;
        began.elapsed()
    };
    let minting = async {
        eventually("the pause is shown", async || {
            endpoint(&grid).await["background_retry_after_secs"]
                .is_u64()
                .then_some(())
        })
        .await;
        meter.report("1").await;
        let shown = endpoint(&grid).await;
        assert!(
            shown["retry_after_secs"].is_null() && shown["healthy"] == true,
            "{shown}"
        );
        assert_eq!(chain_of(&grid.admin()).await["state"], "closed");
    };
    let (registered_after, ()) = tokio::join!(registering, minting);
    assert!(registered_after >= PAUSE, "{registered_after:?}");
    grid.until_count("finalized", 2).await;
    let limits = endpoint(&grid).await["limits"].clone();
    assert_eq!(limits[0]["method"], "getAccountInfo", "{limits}");
    assert_eq!(limits[0]["limit"], "rate", "{limits}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_keeps_its_rate_and_survives_refusals_without_a_time() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [("RPC_BACKGROUND_CALLS_PER_SECOND", "20")];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    grid.serve().await;
    let meter = grid.meter().await;
    for _ in 0..3 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 3).await;
    grid.stop().await;
    let calls: Arc<Mutex<Vec<Instant>>> = Arc::default();
    {
        let calls = Arc::clone(&calls);
        proxy.on_call(move |method, _| {
            let mut calls = calls.lock().unwrap();
            calls.push(Instant::now());
            // The code of a slot without a block at a node, and of too many calls at a provider.
            if method == "getTransaction" && calls.len().is_multiple_of(7) {
                return CallAction::Error(-32_007, "20/second request limit reached");
            }
            CallAction::Forward
        });
    }
    grid.audit_holds().await;
    let calls = calls.lock().unwrap();
    // Their distance at the proxy varies with the time that each takes to get there, so the whole counts.
    let took = calls.last().unwrap().duration_since(calls[0]);
    let least = Duration::from_millis(50) * u32::try_from(calls.len() - 2).unwrap();
    assert!(took >= least, "{} calls in {took:?}", calls.len());
}

/// The calls of each minute, from the calls of each occasion and how often it comes: idle minutes would take minutes to count.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_makes_at_most_20_calls_a_minute_and_another_adds_none() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    // The queries of a start.
    grid.until("the capabilities are probed", async || {
        endpoint(&grid).await["capabilities"]["blocks"] == "yes"
    })
    .await;
    let counted = Counted::on(&proxy);
    let probed_in = async |periods: u32| {
        counted.take();
        tokio::time::sleep(PROBE_EVERY * periods + PROBE_EVERY / 2).await;
        counted.take()
    };
    let alone = probed_in(2).await;
    let probes = alone["getHealth"];
    assert!((1..=3).contains(&probes), "{alone:?}");
    let of_probe: u64 = ["getBlockHeight", "getHealth", "getMultipleAccounts"]
        .map(|method| alone.get(method).copied().unwrap_or_default())
        .iter()
        .sum();
    let per_probe = of_probe.div_ceil(probes);
    let other = grid.spawn(&[]).await;
    tokio::time::sleep(PROBE_EVERY).await;
    let together = probed_in(2).await;
    assert!(
        together["getHealth"] <= probes + 1,
        "alone {alone:?}, two {together:?}"
    );
    drop(other);
    grid.stop().await;
    counted.take();
    let binding = ledger::binding(&grid.pool).await.unwrap();
    let endpoints = Endpoints::new(std::slice::from_ref(&proxy.url), LIMIT);
    ledger::scan_history(
        &grid.pool,
        &endpoints,
        &binding.mint,
        &binding.authority,
        LIMIT,
    )
    .await
    .unwrap();
    let scan = counted.take();
    let a_minute = per_probe * (60 / PROBE_IDLE_EVERY.as_secs()) + sum(&scan);
    println!("a probe {per_probe} calls, a scan {scan:?}: {a_minute} a minute");
    // The one scan that may have come meanwhile, and what is queried now and then.
    let others = sum(&alone) - of_probe;
    assert!(others <= sum(&scan) + RARE_CALLS_MAX, "{alone:?}");
    assert!(a_minute <= 20, "a probe {per_probe}, a scan {scan:?}");
}

/// The calls of ten transactions a second, from the calls of each transaction and those of each second.
#[tokio::test(flavor = "multi_thread")]
async fn ten_transactions_a_second_take_at_most_four_calls_each() {
    const TRANSACTIONS: u64 = 30;
    const SLOTS_PER_SECOND: f64 = 5.0;
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [
        ("BLOCKCHAIN_MAX_BATCH_SIZE", "1"),
        ("INTAKE_BATCH_SIZE", "1"),
    ];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    grid.serve().await;
    let meter = grid.meter().await;
    // Creates the wallet's account.
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let counted = Counted::on(&proxy);
    let began = Instant::now();
    for _ in 0..TRANSACTIONS {
        meter.report("1").await;
    }
    grid.until_count("finalized", 1 + i64::try_from(TRANSACTIONS).unwrap())
        .await;
    let secs = began.elapsed().as_secs_f64();
    let calls = counted.take();
    let of = |method: &str| calls.get(method).copied().unwrap_or_default();
    let probes = of("getHealth");
    let per_transaction = [
        "getMultipleAccounts",
        "simulateTransaction",
        "sendTransaction",
    ]
    .map(of)
    .iter()
    .sum::<u64>()
    .saturating_sub(probes);
    let per_transaction = per_transaction as f64 / TRANSACTIONS as f64;
    // Made once a second, every 400 ms, and once for each slot that holds a transaction of ours.
    let blockhashes = (of("getLatestBlockhash") as f64 / secs).min(1.0);
    let statuses = (of("getSignatureStatuses") as f64 / secs).min(2.5);
    let probing = 3.0 / PROBE_EVERY.as_secs_f64();
    let per_second = blockhashes + statuses + SLOTS_PER_SECOND + probing;
    let at_ten = per_transaction + per_second / 10.0;
    println!(
        "{per_transaction:.2} a transaction and {per_second:.2} a second: {at_ten:.2} ({calls:?} in {secs:.1} s)"
    );
    assert!(of("getLatestBlockhash") as f64 <= secs + 2.0, "{calls:?}");
    assert!(at_ten <= 4.0, "{calls:?}");
    grid.audit_holds().await;
}
