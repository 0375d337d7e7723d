//! While the chain cannot be used nothing is minted and no attempt is used; afterwards everything is minted automatically.

use std::time::{Duration, Instant};

use serde_json::json;
use solana_sdk::signature::{Keypair, Signer};
use spl_token_interface::instruction::{AuthorityType, set_authority};

use crate::support::authority::Authority;
use crate::support::chain_breaker::{
    are_minted_without_an_attempt, no_attempt_is_used, until_closed, until_open,
};
use crate::support::consensus::under_tower;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, ProxyProgram, eventually};

/// Texts of the notifications about the chain breaker, in order.
async fn breaker_notifications(grid: &Grid) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT body::JSON ->> 'error_reason'
         FROM (
             SELECT event_id, body FROM events WHERE event_type = 'AdminNotification'
             UNION
             SELECT event_id, body FROM outbox WHERE event_type = 'AdminNotification'
         ) AS written
         WHERE body LIKE '%the chain breaker is%'
         ORDER BY body::JSON ->> 'timestamp'",
    )
    .fetch_all(&grid.pool)
    .await
    .unwrap()
}

async fn served_through(proxy_url: &str) -> Grid {
    let mut grid = Grid::on_chain(proxy_url, &[]).await;
    grid.serve().await;
    grid
}

/// Submits readings of several meters, 50 in a request.
async fn report_many(grid: &Grid, meters: usize, each: usize) {
    for _ in 0..meters {
        grid.meter().await.report_many("0.01", each).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_30_s_in_the_middle_of_500_readings_uses_no_attempt() {
    const OUTAGE: Duration = Duration::from_secs(30);
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_through(&proxy.url).await;
    let admin = grid.admin();
    report_many(&grid, 5, 50).await;
    grid.until("some are minted", async || grid.landed().await > 0)
        .await;
    let outage = json!([{ "method": "*", "fault": "drop", "for_secs": OUTAGE.as_secs() }]);
    // Registering a meter checks its wallet on chain: the meters of the second half exist before the outage.
    let meters = {
        let mut meters = Vec::new();
        for _ in 0..5 {
            meters.push(grid.meter().await);
        }
        meters
    };
    assert_eq!(proxy.put(outage).await, 204);
    let began = Instant::now();
    for meter in &meters {
        meter.report_many("0.01", 50).await;
    }
    let open = until_open(&admin, "unreachable").await;
    assert_eq!(open["state"], "open");
    let reason = open["reason"].as_str().unwrap();
    assert!(!reason.contains("127.0.0.1"), "no URL is shown: {reason}");
    let ready = admin.get("/health/ready").await;
    assert_eq!(ready.status, 200, "readings are accepted all the same");
    assert_eq!(ready.body["checks"]["chain"]["status"], "degraded");
    // Services of other tests in this process write the same gauge.
    grid.until("the breaker's gauge says so", async || {
        let metrics = admin.get_text("/metrics").await;
        metrics.contains("\ngridtokenx_chain_breaker_open 1\n")
    })
    .await;
    until_closed(&admin).await;
    assert!(
        began.elapsed() >= OUTAGE,
        "it closed while the chain was away"
    );
    let audit = are_minted_without_an_attempt(&grid, 500).await;
    assert_eq!(audit["base_units_chain"], "5000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_open_the_backlog_is_untouched_and_continues_once_it_closes() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_through(&proxy.url).await;
    let admin = grid.admin();
    let meter = grid.meter().await;
    proxy.put_fault("*", "unavailable").await;
    until_open(&admin, "unreachable").await;
    meter.report_many("0.01", 400).await;
    // Longer than a job waits for the breaker.
    tokio::time::sleep(Duration::from_secs(14)).await;
    let untouched: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM apalis.jobs WHERE job_type = 'MintReading' AND attempts = 0",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert!(
        untouched > 0,
        "every job of the backlog was run without effect"
    );
    proxy.forward_everything().await;
    until_closed(&admin).await;
    let closed = Instant::now();
    grid.until("all are on their way", async || {
        grid.count("pending").await == 0
    })
    .await;
    let took = closed.elapsed();
    assert!(
        took < Duration::from_secs(30),
        "deferred jobs waited on: {took:?}"
    );
    are_minted_without_an_attempt(&grid, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_way_to_the_chain_is_survived_without_an_attempt() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_through(&proxy.url).await;
    let meter = grid.meter().await;
    let internal = json!({ "code": -32603, "message": "Internal error" });
    let unhealthy = json!({ "code": -32005, "message": "Node is behind by 99 slots",
                            "data": { "numSlotsBehind": 99 } });
    let faults = [
        json!([{ "method": "*", "fault": "drop", "for_secs": 2 }]),
        json!([{ "method": "simulateTransaction", "fault": "drop", "for_calls": 5 }]),
        json!([{ "method": "*", "fault": "unavailable", "for_secs": 2 }]),
        json!([{ "method": "*", "fault": "rate-limit", "retry_after_secs": 1, "for_secs": 3 }]),
        json!([{ "method": "*", "fault": "rate-limit", "for_calls": 3 }]),
        json!([{ "method": "*", "fault": "error", "error": internal, "for_secs": 2 }]),
        json!([{ "method": "*", "fault": "error", "error": unhealthy, "for_calls": 20 }]),
        json!([{ "method": "*", "fault": "delay", "ms": 300, "for_secs": 3 }]),
        json!([{ "method": "sendTransaction", "fault": "forward-then-time-out", "for_calls": 2 }]),
        json!([{ "method": "sendTransaction", "fault": "drop", "for_calls": 2 }]),
        json!([{ "method": "getLatestBlockhash", "fault": "lag", "slots": 40, "for_calls": 2 }]),
        json!([{ "method": "*", "fault": "forget-history", "for_secs": 3 }]),
        json!([{ "method": "*", "fault": "say-not-found", "for_secs": 3 }]),
    ];
    let mut reported = 0;
    for fault in faults {
        assert_eq!(proxy.put(fault.clone()).await, 204, "{fault}");
        for _ in 0..3 {
            meter.report("0.1").await;
            reported += 1;
        }
        grid.until(&format!("all are minted after {fault}"), async || {
            grid.landed().await == reported
        })
        .await;
    }
    proxy.forward_everything().await;
    let audit = are_minted_without_an_attempt(&grid, reported).await;
    assert_eq!(
        audit["base_units_chain"],
        (reported * 100_000_000).to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_delays_no_caller_beyond_the_call_limit() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(
        &proxy.url,
        &[("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", "2")],
    )
    .await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.put_fault("*", "hang").await;
    for _ in 0..3 {
        meter.report("0.1").await;
    }
    until_open(&grid.admin(), "unreachable").await;
    assert_eq!(grid.count("pending").await, 3);
    proxy.forward_everything().await;
    are_minted_without_an_attempt(&grid, 3).await;
}

under_tower!(a_node_that_confirms_what_never_landed_is_detected,);

async fn a_node_that_confirms_what_never_landed_is_detected() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = served_through(&proxy.url).await;
    let meter = grid.meter().await;
    // Nothing arrives, and the node reports all of it as confirmed.
    let rules = json!([
        { "method": "sendTransaction", "fault": "unavailable" },
        { "method": "getSignatureStatuses", "fault": "say-confirmed" },
    ]);
    assert_eq!(proxy.put(rules).await, 204);
    for _ in 0..3 {
        meter.report("1").await;
    }
    grid.until_count("minted", 3).await;
    proxy.forward_everything().await;
    // Not seen any more, so it is a fork: the same bytes are sent again.
    let audit = are_minted_without_an_attempt(&grid, 3).await;
    assert_eq!(audit["base_units_chain"], "3000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_fail_although_every_probe_succeeds_open_it_too() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = served_through(&proxy.url).await;
    let admin = grid.admin();
    let meter = grid.meter().await;
    proxy.on_call(|method, _| match method {
        "simulateTransaction" => CallAction::Error(-32603, "Internal error"),
        _ => CallAction::Forward,
    });
    for _ in 0..40 {
        meter.report("0.01").await;
    }
    eventually("it opens", async || {
        let metrics = admin.get("/api/admin/tokenization/status").await.ok();
        (metrics["chain"]["trouble"] == "failing").then_some(())
    })
    .await;
    let before = proxy.received("simulateTransaction");
    tokio::time::sleep(Duration::from_secs(15)).await;
    let tries = proxy.received("simulateTransaction") - before;
    assert!(tries <= 40, "{tries} tries in 15 s are not backed off");
    proxy.forward_everything();
    are_minted_without_an_attempt(&grid, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mint_that_we_no_longer_control_stops_minting_and_uses_no_attempt() {
    let grid = Grid::start().await;
    let admin = grid.admin();
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let stranger = Keypair::new();
    let hand_over = |from: &solana_sdk::pubkey::Pubkey, to: &solana_sdk::pubkey::Pubkey| {
        let token = spl_token_interface::ID;
        let kind = AuthorityType::MintTokens;
        set_authority(&token, &authority.mint, Some(to), kind, from, &[]).unwrap()
    };
    let ours = authority.payer();
    authority
        .send(hand_over(&ours, &stranger.pubkey()), &[])
        .await;
    for _ in 0..3 {
        meter.report("1").await;
    }
    let open = until_open(&admin, "mint_unknown").await;
    let reason = open["reason"].as_str().unwrap();
    assert!(
        reason.contains("can no longer be minted by our authority"),
        "{reason}"
    );
    assert_eq!(grid.count("pending").await, 3);
    authority
        .send(hand_over(&stranger.pubkey(), &ours), &[&stranger])
        .await;
    are_minted_without_an_attempt(&grid, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_announced_once_by_three_replicas_and_its_end_once() {
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let grid = Grid::without_service(&[]).await;
    let through_proxy = [("SOLANA_RPC_URL", proxy.url.as_str())];
    let first = grid.spawn(&through_proxy).await;
    let _second = grid.spawn(&through_proxy).await;
    let _third = grid.spawn(&through_proxy).await;
    let meter = first.user("prosumer").meter().await;
    proxy.put_fault("*", "drop").await;
    for _ in 0..6 {
        meter.report("0.1").await;
    }
    grid.until("it is announced", async || {
        breaker_notifications(&grid).await.len() == 1
    })
    .await;
    // The chain recovers for a moment: it counts as the same outage.
    proxy.forward_everything().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.put_fault("*", "drop").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(
        breaker_notifications(&grid).await.len(),
        1,
        "an outage is announced once"
    );
    proxy.forward_everything().await;
    grid.until_count("finalized", 6).await;
    grid.until("its end is announced", async || {
        breaker_notifications(&grid).await.len() == 2
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sent = breaker_notifications(&grid).await;
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].starts_with("the chain breaker is open"), "{sent:?}");
    assert!(
        sent[1].starts_with("the chain breaker is closed"),
        "{sent:?}"
    );
    assert!(!sent[0].contains("127.0.0.1"), "no URL is shown");
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}
