//! With several RPC endpoints the service continues as long as one is usable, queries first one that is not behind, and makes
//! no calls to an endpoint that has requested a pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::chain_breaker::{
    are_minted_without_an_attempt, chain_of, no_attempt_is_used, until_closed, until_open,
};
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, ProxyProgram, eventually};

/// A service on these endpoints.
async fn served_by(urls: &[&str]) -> Grid {
    let mut grid = Grid::on_chain(&urls.join(","), &[]).await;
    grid.serve().await;
    grid
}

fn endpoint<'a>(chain: &'a Value, name: &str) -> &'a Value {
    let endpoints = chain["endpoints"].as_array().unwrap();
    let found = endpoints.iter().find(|endpoint| endpoint["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {chain}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_move_from_an_endpoint_that_fails_to_the_next() {
    let first = ProxyProgram::start(world().rpc_url()).await;
    let second = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_by(&[&first.url, &second.url]).await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    first.put_fault("*", "drop").await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 6).await;
    let chain = chain_of(&grid.admin()).await;
    assert_eq!(chain["state"], "closed", "one endpoint is enough: {chain}");
    assert_eq!(endpoint(&chain, "rpc-2")["preferred"], true);
    eventually("the first one is seen to be away", async || {
        let chain = chain_of(&grid.admin()).await;
        (endpoint(&chain, "rpc-1")["healthy"] == false).then_some(())
    })
    .await;
    no_attempt_is_used(&grid).await;
    // The audit queries the endpoints too, and the first one is unavailable.
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_that_is_behind_is_not_queried_first() {
    let (lagging, good) = (
        ProxyProgram::start(world().rpc_url()).await,
        ProxyProgram::start(world().rpc_url()).await,
    );
    let grid = served_by(&[&lagging.url, &good.url]).await;
    let admin = grid.admin();
    assert_eq!(
        endpoint(&chain_of(&admin).await, "rpc-1")["preferred"],
        true
    );
    let lag = json!([{ "method": "*", "fault": "lag", "slots": 60 }]);
    assert_eq!(lagging.put(lag).await, 204);
    let chain = eventually("the other one is queried first", async || {
        let chain = chain_of(&admin).await;
        (endpoint(&chain, "rpc-2")["preferred"] == true).then_some(chain)
    })
    .await;
    let behind = endpoint(&chain, "rpc-1");
    assert_eq!(behind["healthy"], false);
    assert!(behind["lag_blocks"].as_u64().unwrap() >= 20, "{behind}");
    assert_eq!(chain["state"], "closed");
    let before = lagging.received("getLatestBlockhash").await;
    let meter = grid.meter().await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 5).await;
    assert_eq!(
        lagging.received("getLatestBlockhash").await,
        before,
        "a blockhash was requested from the endpoint that is behind"
    );
    no_attempt_is_used(&grid).await;
    // The audit queries the first endpoint, whose supply is current and whose history is not.
    lagging.forward_everything().await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_endpoint_that_falls_back_stops_minting_until_it_has_caught_up() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_by(&[&proxy.url]).await;
    let admin = grid.admin();
    let meter = grid.meter().await;
    let lag = json!([{ "method": "*", "fault": "lag", "slots": 2_000 }]);
    assert_eq!(proxy.put(lag).await, 204);
    until_open(&admin, "lagging").await;
    meter.report("1").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(grid.count("pending").await, 1);
    proxy.forward_everything().await;
    until_closed(&admin).await;
    are_minted_without_an_attempt(&grid, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_obeyed_and_with_one_endpoint_minting_waits() {
    const PAUSE: Duration = Duration::from_secs(8);
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = served_by(&[&proxy.url]).await;
    let admin = grid.admin();
    let meter = grid.meter().await;
    let limited_at: Arc<Mutex<Option<Instant>>> = Arc::default();
    let calls_after: Arc<Mutex<Vec<Duration>>> = Arc::default();
    {
        let (limited_at, calls_after) = (Arc::clone(&limited_at), Arc::clone(&calls_after));
        proxy.on_call(move |method, _| {
            let mut limited_at = limited_at.lock().unwrap();
            match *limited_at {
                // The first call that minting makes: one of background work would pause background work alone.
                None if method != "getLatestBlockhash" => CallAction::Forward,
                None => {
                    *limited_at = Some(Instant::now());
                    CallAction::RetryAfter {
                        status: 429,
                        secs: PAUSE.as_secs(),
                    }
                }
                Some(limited_at) => {
                    calls_after.lock().unwrap().push(limited_at.elapsed());
                    CallAction::Forward
                }
            }
        });
    }
    for _ in 0..5 {
        meter.report("1").await;
    }
    let chain = until_open(&admin, "rate_limited").await;
    let wait = endpoint(&chain, "rpc-1")["retry_after_secs"].as_u64();
    assert!(
        wait.is_some_and(|secs| secs <= PAUSE.as_secs() + 1),
        "{chain}"
    );
    assert_eq!(grid.count("pending").await, 5);
    grid.until_count("finalized", 5).await;
    // Calls that were under way when the 429 was answered may arrive within a moment of it.
    let under_way = Duration::from_millis(500);
    let early: Vec<Duration> = calls_after
        .lock()
        .unwrap()
        .iter()
        .copied()
        .filter(|after| *after > under_way && *after < PAUSE)
        .collect();
    assert!(
        early.is_empty(),
        "calls before the time was over: {early:?}"
    );
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_endpoint_is_rate_limited_the_others_are_queried() {
    let limited = ProxyProgram::start(world().rpc_url()).await;
    let other = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_by(&[&limited.url, &other.url]).await;
    let meter = grid.meter().await;
    let limit = json!([{ "method": "*", "fault": "rate-limit", "retry_after_secs": 600 }]);
    assert_eq!(limited.put(limit).await, 204);
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 5).await;
    let chain = chain_of(&grid.admin()).await;
    assert_eq!(chain["state"], "closed");
    assert!(
        endpoint(&chain, "rpc-1")["retry_after_secs"].is_u64(),
        "{chain}"
    );
    let limited_calls = async || {
        let control = limited.control().await;
        control["rules"][0]["decided"].as_u64().unwrap()
    };
    let before = limited_calls().await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 10).await;
    assert_eq!(limited_calls().await, before, "it was called all the same");
    no_attempt_is_used(&grid).await;
    let metrics = grid.admin().get_text("/metrics").await;
    let is_counted = metrics.lines().any(|line| {
        line.starts_with("gridtokenx_rpc_calls_total{")
            && line.contains(r#"endpoint="rpc-1""#)
            && line.contains(r#"outcome="rate_limited""#)
    });
    assert!(is_counted, "the 429 is in the metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn blockhash_simulation_and_first_send_of_a_transaction_go_to_one_endpoint() {
    let proxies = [
        Proxy::start(world().rpc_url()).await,
        Proxy::start(world().rpc_url()).await,
    ];
    let grid = served_by(&[&proxies[0].url, &proxies[1].url]).await;
    // The calls of each endpoint, by the blockhash that it returned or received.
    let sends: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    for (index, proxy) in proxies.iter().enumerate() {
        let sends = Arc::clone(&sends);
        proxy.on_call(move |method, parameters| {
            if method == "sendTransaction" {
                let signed_bytes = parameters[0].as_str().unwrap().to_owned();
                sends
                    .lock()
                    .unwrap()
                    .entry(signed_bytes)
                    .or_default()
                    .push(index);
            }
            CallAction::Forward
        });
    }
    let meter = grid.meter().await;
    for _ in 0..10 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 10).await;
    let given: Vec<(Vec<u8>, String)> =
        sqlx::query_as("SELECT wire, endpoint FROM mint_transactions")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    let sends = sends.lock().unwrap();
    for (signed_bytes, endpoint) in given {
        use base64::Engine;
        let signed_bytes = base64::engine::general_purpose::STANDARD.encode(signed_bytes);
        let first = sends[&signed_bytes][0];
        assert_eq!(format!("rpc-{}", first + 1), endpoint);
    }
}
