//! The chain's charges, its speed and its consensus are queried and measured, and followed while the service runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gridtokenx::fault_proxy::ConfirmedCommitment;
use serde_json::{Value, json};

use crate::support::consensus::under_tower;
use crate::support::metrics::value;
use crate::support::world::world;
use crate::support::{Api, CallAction, Grid, Proxy, eventually};

under_tower!(
    a_cluster_that_migrates_to_alpenglow_is_followed_without_a_restart,
    an_endpoint_that_refuses_confirmed_and_reports_no_consensus_is_enough,
);

/// Of the local chain.
const RENT: u64 = 1_488_440;
const FEE: u64 = 5_000;

/// On a busy machine the database may not answer in time.
async fn status(admin: &Api) -> Value {
    eventually("the status is answered", async || {
        let answer = admin.get("/api/admin/tokenization/status").await;
        (answer.status == 200).then_some(answer.body)
    })
    .await
}

async fn chain(admin: &Api) -> Value {
    status(admin).await["chain"].clone()
}

async fn until_consensus(admin: &Api, consensus: &str) {
    eventually(&format!("the consensus is {consensus}"), async || {
        (chain(admin).await["consensus"] == consensus).then_some(())
    })
    .await;
}

async fn until_slots_are_measured(admin: &Api) -> Value {
    eventually("the length of a slot is measured", async || {
        let parameters = chain(admin).await["parameters"].clone();
        parameters["slot_ms"].is_number().then_some(parameters)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_are_asked_and_stored_and_what_was_taken_is_read_back() {
    const REPORTED_RENT: u64 = 2_000_000;
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|method, parameters| match method {
        "getMinimumBalanceForRentExemption" if parameters[0] == 165 => {
            CallAction::Answer(json!(REPORTED_RENT))
        }
        _ => CallAction::Forward,
    });
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    // A separate process, so that no other service counts in its metrics.
    let server = grid.spawn(&[]).await;
    let admin = server.admin();
    server.user("prosumer").meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    let parameters = chain(&admin).await["parameters"].clone();
    assert_eq!(parameters["token_account_rent_lamports"], REPORTED_RENT);
    assert_eq!(parameters["signature_lamports"], FEE);
    let booked: (i64, i64) =
        sqlx::query_as("SELECT fee_lamports, token_account_rent_lamports FROM mint_transactions")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(booked, (FEE as i64, REPORTED_RENT as i64));
    // The chain took its own rent.
    let charged = eventually("the charge is read", async || {
        let charged: (Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT fee_lamports_charged, rent_lamports_charged FROM mint_transactions",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        charged.0.zip(charged.1)
    })
    .await;
    assert_eq!(charged, (FEE as i64, RENT as i64));
    let runway = status(&admin).await["runway"].clone();
    assert_eq!(runway["lamports_per_reading"], FEE + RENT);
    let less = "gridtokenx_fees_misbooked_lamports_total{direction=\"less\"}";
    grid.until("the difference is counted", async || {
        value(&admin, less).await == (REPORTED_RENT - RENT) as f64
    })
    .await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_an_earlier_version_count_with_the_rent_of_then() {
    let grid = Grid::start().await;
    grid.meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.execute(
        "UPDATE mint_transactions
         SET token_account_rent_lamports = NULL, fee_lamports_charged = NULL, rent_lamports_charged = NULL",
    )
    .await;
    let runway = status(&grid.admin()).await["runway"].clone();
    assert_eq!(runway["lamports_per_reading"], FEE + 2_039_280);
}

/// The cluster migrates while the service runs, and its nodes stop taking `confirmed`.
async fn a_cluster_that_migrates_to_alpenglow_is_followed_without_a_restart() {
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|method, _| match method {
        "getAgGenesisCert" => CallAction::Answer(Value::Null),
        _ => CallAction::Forward,
    });
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let admin = grid.admin();
    until_consensus(&admin, "tower").await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    proxy.on_call(|_, _| CallAction::Alpenglow(ConfirmedCommitment::Refused));
    meter.report("1").await;
    grid.until_count("finalized", 2).await;
    until_consensus(&admin, "alpenglow").await;
    assert_eq!(
        chain(&admin).await["endpoints"][0]["consensus"],
        "alpenglow"
    );
    // A confirmed transaction is final: one event follows the other at once.
    meter.report("1").await;
    grid.until_count("finalized", 3).await;
    grid.audit_holds().await;
}

/// Nothing says which consensus it runs: it takes `processed` and `finalized`, and refuses `confirmed`.
async fn an_endpoint_that_refuses_confirmed_and_reports_no_consensus_is_enough() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let refused = Arc::new(AtomicBool::default());
    let noted = Arc::clone(&refused);
    proxy.on_call(move |_, parameters| {
        if parameters.to_string().contains("\"confirmed\"") {
            noted.store(true, Ordering::SeqCst);
            return CallAction::Error(-32602, "Invalid params");
        }
        CallAction::Forward
    });
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    assert_eq!(chain(&grid.admin()).await["consensus"], "unknown");
    let meter = grid.meter().await;
    for readings in 1..=2 {
        meter.report("1").await;
        grid.until_count("finalized", readings).await;
    }
    assert!(
        refused.load(Ordering::SeqCst),
        "it was called with confirmed"
    );
    grid.audit_holds().await;
}

/// Simulation takes longer than a third of a blockhash's life.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_slow_signs_on_another_blockhash() {
    const SIMULATION: Duration = Duration::from_secs(12);
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let before = until_slots_are_measured(&grid.admin()).await;
    let blockhashes = proxy.received("getLatestBlockhash");
    proxy.on_call(|method, _| match method {
        "simulateTransaction" => CallAction::Delay(SIMULATION),
        _ => CallAction::Forward,
    });
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let after = chain(&grid.admin()).await["parameters"].clone();
    // On a machine that is so busy that blocks take much longer, the first one is young enough.
    let is_worn = |parameters: &Value| {
        let life = parameters["blockhash_life_secs"].as_f64().unwrap();
        SIMULATION.as_secs_f64() > life / 3.0
    };
    let fetched = proxy.received("getLatestBlockhash") - blockhashes;
    let expected = if is_worn(&before) && is_worn(&after) {
        2
    } else {
        1
    };
    assert!(fetched >= expected, "{fetched}, {before}, {after}");
    let dead: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mint_transactions WHERE state = 'dead'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(dead, 0);
    grid.audit_holds().await;
}
