//! Each accepted reading is paid exactly once, wherever the process is killed.

use gridtokenx::domain::signed_bytes;
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_sdk::pubkey::Pubkey;

use crate::support::consensus::under_each_consensus;
use crate::support::{Api, Grid, Meter, eventually};

under_each_consensus!(
    readings_become_tokens_and_are_finalized,
    several_readings_of_one_wallet_are_one_payment,
    the_same_bytes_sent_twice_pay_once,
);

async fn readings_become_tokens_and_are_finalized() {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    let first = meter.report("1.25").await;
    for _ in 0..24 {
        meter.report("0.5").await;
    }
    grid.until_count("finalized", 25).await;

    let reading = meter.api.get(&format!("/api/readings/{first}")).await.ok();
    assert_eq!(reading["state"], "finalized");
    assert_eq!(reading["base_units"], "1250000000");
    assert_eq!(balance(&grid, &meter).await, 13_250_000_000);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["readings_finalized"], 25);
    assert!(grid.stop().await, "an idle service drains at once");
}

async fn several_readings_of_one_wallet_are_one_payment() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "500")]).await;
    let meter = grid.meter().await;
    meter.report_many("0.1", 40).await;
    grid.until_count("finalized", 40).await;
    assert_eq!(balance(&grid, &meter).await, 4_000_000_000);
    let transactions: i64 = sqlx::query_scalar("SELECT count(*) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert!(
        transactions <= 3,
        "{transactions} transactions for one wallet"
    );
    grid.audit_holds().await;
}

async fn the_same_bytes_sent_twice_pay_once() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    meter.report("2").await;
    grid.until_landed(1).await;
    let signed_bytes: Vec<u8> = sqlx::query_scalar("SELECT wire FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let transaction = signed_bytes::decode(&signed_bytes).unwrap();
    let rpc = RpcClient::new(grid.rpc_url.clone());
    let again = rpc.send_transaction(&transaction).await;
    assert!(again.is_err(), "the chain takes a signature once");
    grid.until_count("finalized", 1).await;
    assert_eq!(balance(&grid, &meter).await, 2_000_000_000);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_database_pay_two_thousand_readings_once() {
    const METERS: usize = 40;
    const READINGS_PER_METER: usize = 50;
    let grid = Grid::without_service(&[]).await;
    let first = grid.spawn(&[]).await;
    let second = grid.spawn(&[]).await;
    let mut submitting = tokio::task::JoinSet::new();
    for index in 0..METERS {
        let server = if index % 2 == 0 { &first } else { &second };
        let api = server.user("prosumer");
        submitting.spawn(async move {
            let meter = api.meter().await;
            let readings: Vec<Value> = (0..READINGS_PER_METER)
                .map(|_| meter.next_submission("0.25"))
                .collect();
            meter
                .api
                .post(
                    "/api/meters/submit-readings",
                    &json!({ "readings": readings }),
                )
                .await
                .ok()
        });
    }
    while let Some(answer) = submitting.join_next().await {
        assert_eq!(answer.unwrap()["accepted"], READINGS_PER_METER);
    }
    let total = (METERS * READINGS_PER_METER) as i64;
    grid.until_count("finalized", total).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "500000000000");
}

/// Kills the process at a step, starts it again, and demands that everything accepted is paid once.
async fn survives_a_kill_at(point: &str) {
    const READINGS: usize = 12;
    let grid = Grid::without_service(&[]).await;
    let mut server = grid.spawn(&[]).await;
    let meter = server.user("prosumer").meter().await;
    let submissions: Vec<Value> = (0..READINGS)
        .map(|_| meter.next_submission("0.75"))
        .collect();
    server.kill9().await;

    let failpoints = format!("{point}=return(kill)");
    let mut server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let api = server.user("prosumer");
    submit_each(&api, &submissions).await;
    let status = server.ended().await;
    assert!(!status.success(), "it was killed at {point}");

    let server = grid.spawn(&[]).await;
    // Readings that were answered are stored; the others may be stored, and are then found as duplicates.
    submit_each(&server.user("prosumer"), &submissions).await;
    grid.until_count("finalized", READINGS as i64).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "9000000000");
}

/// If the service is killed meanwhile, some of the connections break without an answer.
async fn submit_each(api: &Api, submissions: &[Value]) {
    for submission in submissions {
        let _ = api.try_post("/api/meters/submit-reading", submission).await;
    }
}

macro_rules! survives_a_kill {
    ($($name:ident: $point:literal),* $(,)?) => {
        $(
            async fn $name() {
                survives_a_kill_at($point).await;
            }
        )*
        under_each_consensus!($($name),*);
    };
}

survives_a_kill! {
    kill_before_the_intake_commits: "intake.before_commit",
    kill_after_the_intake_committed: "intake.committed",
    kill_when_a_job_was_picked: "queue.picked",
    kill_after_signing: "mint.signed",
    kill_before_the_record_commits: "ledger.before_record_commit",
    kill_after_the_record_committed: "ledger.recorded",
    kill_before_the_send: "mint.before_send",
    kill_after_the_send: "mint.sent",
    kill_before_the_confirmation_commits: "ledger.before_confirm_commit",
    kill_after_the_confirmation_committed: "ledger.confirmed",
    kill_before_finality_commits: "ledger.before_finalize_commit",
    kill_after_finality_committed: "ledger.finalized",
}

/// Base units in the wallet's token account, read from the chain.
async fn balance(grid: &Grid, meter: &Meter) -> u64 {
    let mint: String = sqlx::query_scalar("SELECT mint_address FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let mint: Pubkey = mint.parse().unwrap();
    let account = spl_associated_token_account_interface::address::get_associated_token_address(
        &solana_sdk::signature::Signer::pubkey(&meter.wallet),
        &mint,
    );
    let rpc = RpcClient::new(grid.rpc_url.clone());
    eventually("the token account can be read", async || {
        let balance = rpc.get_token_account_balance(&account).await.ok()?;
        balance.amount.parse().ok()
    })
    .await
}
