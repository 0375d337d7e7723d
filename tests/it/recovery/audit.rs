//! The audit finds and names every difference between ledger and chain, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use solana_sdk::signature::{Signature, Signer};
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_token_interface::instruction::{batch, burn};

use crate::support::audit::{audit_with, difference, done, refused};
use crate::support::authority::Authority;
use crate::support::consensus::under_each_consensus;
use crate::support::ledger::{breaker, next_number, until_breaker};
use crate::support::localnet::TempDir;
use crate::support::metrics::value;
use crate::support::server::program;
use crate::support::stored_events::notifications;
use crate::support::{Api, CallAction, Grid, Meter, Proxy, eventually};

/// A service that has finalized `readings` readings of 1 kWh, and was stopped.
async fn settled(readings: i64) -> (Grid, Meter, Vec<String>) {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    let mut ids = Vec::new();
    for _ in 0..readings {
        ids.push(meter.report("1").await);
    }
    grid.until_count("finalized", readings).await;
    grid.stop().await;
    grid.audit_holds().await;
    (grid, meter, ids)
}

fn kinds(report: &Value) -> Vec<&str> {
    let differences = report["differences"].as_array().unwrap();
    differences
        .iter()
        .map(|difference| difference["kind"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_of_the_ledger_is_found_from_the_chain() {
    let (grid, _, ids) = settled(1).await;
    let signature: Vec<u8> = sqlx::query_scalar("SELECT signature FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    grid.execute("DELETE FROM mint_transaction_readings; DELETE FROM mint_transactions")
        .await;

    let report = grid.audit().await;
    let unknown = difference(&report, "unknown_mint");
    let signature = Signature::try_from(signature).unwrap();
    assert_eq!(unknown["signature"], signature.to_string());
    assert_eq!(unknown["base_units"], "1000000000");
    let unpaid = difference(&report, "not_paid");
    assert_eq!(unpaid["reading_id"], ids[0].as_str());
    for named in [unknown, unpaid] {
        let sentence = named["message"].as_str().unwrap();
        assert!(sentence.contains("1000000000"), "{sentence}");
    }
    assert_eq!(report["base_units_ledger"], "0");
    assert_eq!(report["base_units_chain"], "1000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_reading_is_found_and_named() {
    let (grid, meter, ids) = settled(2).await;
    grid.execute("CREATE TABLE before AS TABLE readings; CREATE TABLE paid AS TABLE mint_transaction_readings",
    )
    .await;
    let wallet = meter.wallet.pubkey().to_string();

    grid.execute("UPDATE readings SET base_units = base_units + 1 WHERE id = (SELECT min(id::TEXT)::UUID FROM readings)").await;
    let report = grid.audit().await;
    let amount = difference(&report, "wrong_amount");
    assert_eq!(amount["wallet"], wallet);
    assert!(
        amount["readings"]
            .as_array()
            .unwrap()
            .contains(&json!(ids.iter().min()))
    );
    assert!(kinds(&report).contains(&"wrong_root"), "{report:#}");
    assert!(kinds(&report).contains(&"sums_differ"), "{report:#}");

    for (change, expected) in [
        (
            "UPDATE readings SET base_units = 7, wallet = decode(repeat('02', 32), 'hex')",
            "wrong_amount",
        ),
        (
            "UPDATE readings SET interval_start = interval_start + INTERVAL '1 minute'",
            "wrong_root",
        ),
        ("UPDATE readings SET kwh = 2", "wrong_root"),
        (
            "UPDATE readings SET salt = decode(repeat('02', 16), 'hex')",
            "wrong_root",
        ),
        ("UPDATE readings SET state = 'pending'", "wrong_state"),
        (
            "UPDATE mint_transaction_readings SET live = FALSE",
            "released",
        ),
        ("DELETE FROM mint_transaction_readings", "not_paid"),
    ] {
        grid.execute(change).await;
        let report = grid.audit().await;
        assert!(kinds(&report).contains(&expected), "{change}: {report:#}");
        grid.execute("TRUNCATE mint_transaction_readings; INSERT INTO mint_transaction_readings SELECT * FROM paid;
             UPDATE readings
             SET base_units = before.base_units, wallet = before.wallet, interval_start = before.interval_start,
                 kwh = before.kwh, salt = before.salt, state = before.state
             FROM before
             WHERE before.id = readings.id",
        )
        .await;
        grid.audit_holds().await;
    }
}

under_each_consensus!(a_mint_that_no_service_signed_opens_the_breaker_until_it_is_booked,);

async fn a_mint_that_no_service_signed_opens_the_breaker_until_it_is_booked() {
    let (mut grid, meter, _) = settled(1).await;
    let authority = Authority::of(&grid).await;
    let token = spl_token_interface::ID;
    // In a batch instruction: the token program mints although no instruction of the transaction is a mint.
    let hidden = batch(&token, &[authority.mint_to(&meter, 5)]).unwrap();
    let signature = authority.send(hidden, &[]).await.to_string();

    let report = grid.audit().await;
    let unknown = difference(&report, "unknown_mint");
    assert_eq!(unknown["signature"], signature.as_str());
    assert_eq!(unknown["base_units"], "5");

    grid.serve().await;
    until_breaker(&grid, "mismatch").await;
    let (_, reason) = breaker(&grid).await;
    assert!(reason.unwrap().contains(&signature));
    assert_eq!(notifications(&grid).await, 1);
    let before = next_number(&grid).await;
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("2").await;
    grid.until("the minter has requested a signature and was refused", async || {
        let refused: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM apalis.jobs WHERE job_type = 'MintReading' AND status = 'Failed')",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        refused
    })
    .await;
    assert_eq!(
        next_number(&grid).await,
        before,
        "nothing was even prepared"
    );
    assert_eq!(grid.count("pending").await, 1);
    assert_eq!(authority.supply().await, 1_000_000_005);
    assert_eq!(notifications(&grid).await, 1, "notified once");

    grid.execute("UPDATE foreign_mints SET booked_reason = 'a test'")
        .await;
    grid.until_count("finalized", 2).await;
    assert_eq!(breaker(&grid).await, ("closed".to_owned(), None));
    let report = grid.audit_holds().await;
    assert_eq!(report["foreign"][0]["signature"], signature.as_str());
    assert_eq!(report["foreign"][0]["booked_reason"], "a test");
    assert_eq!(report["token_supply"], "3000000005");
}

#[tokio::test(flavor = "multi_thread")]
async fn burned_tokens_are_not_a_difference() {
    let (grid, meter, _) = settled(1).await;
    let authority = Authority::of(&grid).await;
    let holder = meter.wallet.pubkey();
    let account = get_associated_token_address(&holder, &authority.mint);
    let token = spl_token_interface::ID;
    let burned = burn(&token, &account, &authority.mint, &holder, &[], 400).unwrap();
    authority.send(burned, &[&meter.wallet]).await;

    let report = grid.audit_holds().await;
    assert_eq!(report["burned"], "400");
    assert_eq!(report["token_supply"], "999999600");
    assert_eq!(report["base_units_chain"], "1000000000");
}

/// A node that lacks the beginning of the history hides a manual mint, and burned tokens hide it in the supply.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_accepts_only_a_history_that_begins_with_the_mint() {
    let (mut grid, meter, _) = settled(1).await;
    let authority = Authority::of(&grid).await;
    let by_hand = authority.mint_by_hand(&meter, 7).await;
    authority.burn(&meter, 7).await;
    let whole = grid.rpc_url.clone();
    let pruned = Proxy::start(&whole).await;
    let now = authority.rpc.get_slot().await.unwrap();
    pruned.on_call(move |_, _| CallAction::Prune { before_slot: now });

    grid.rpc_url = pruned.url.clone();
    let sentence = refused(&grid, &[]).await;
    assert!(
        sentence.contains("add one with full history") && sentence.contains("rpc-1"),
        "{sentence}"
    );
    grid.rpc_url = format!("{},{whole}", pruned.url);
    let report = grid.audit().await;
    let unknown = difference(&report, "unknown_mint");
    assert_eq!(unknown["signature"], by_hand.as_str());
    let report = done(&grid, &["--foreign", &by_hand, "a test by hand"]).await;
    assert_eq!(report["burned"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_at_any_moment_while_the_service_mints() {
    const AUDITS_MEANWHILE: usize = 4;
    let grid = Grid::start().await;
    let meters = [grid.meter().await, grid.meter().await, grid.meter().await];
    let audits = Arc::new(AtomicUsize::new(0));
    let audited = Arc::clone(&audits);
    // On a busy machine an audit takes as long as many readings.
    let reporting = tokio::spawn(async move {
        let mut reported = 0;
        while reported < 120 || audited.load(Ordering::Relaxed) < AUDITS_MEANWHILE {
            for meter in &meters {
                meter.report("0.3").await;
                reported += 1;
            }
        }
        reported
    });
    while !reporting.is_finished() {
        let report = grid.audit_holds().await;
        assert_eq!(report["burned"], "0", "{report:#}");
        audits.fetch_add(1, Ordering::Relaxed);
    }
    let reported = reporting.await.unwrap();
    while grid.count("finalized").await < reported {
        grid.audit_holds().await;
    }
    let report = grid.audit_holds().await;
    assert_eq!(report["readings_finalized"], reported);
    assert_eq!(
        report["outstanding"],
        json!({ "readings": 0, "base_units": "0" })
    );
}

/// The metrics about audits: differences, and when the last audit was finished.
async fn watched(api: &Api) -> (f64, f64) {
    let differences = value(api, "gridtokenx_audit_differences").await;
    let finished_at = value(api, "gridtokenx_audit_last_finished_timestamp_seconds").await;
    (differences, finished_at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_watched_once_it_is_recorded() {
    let (grid, ..) = settled(2).await;
    let server = grid.spawn(&[]).await;
    let api = server.user("an operator");
    grid.audit_holds().await;
    let (differences, finished_at) = watched(&api).await;
    assert!(
        differences.is_nan(),
        "nothing was recorded, and {differences} found"
    );
    assert_eq!(finished_at, 0.0);

    let report = done(&grid, &["--record"]).await;
    let said_at: DateTime<Utc> = serde_json::from_value(report["finished_at"].clone()).unwrap();
    eventually("it is seen", async || {
        let seen = watched(&api).await;
        (seen == (0.0, said_at.timestamp() as f64)).then_some(())
    })
    .await;

    grid.execute("UPDATE readings SET kwh = 2").await;
    let output = audit_with(&grid, &["--record"]).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["differences"].as_array().unwrap().len() as f64;
    eventually("the differences are seen", async || {
        (watched(&api).await.0 == found).then_some(())
    })
    .await;

    grid.execute("UPDATE readings SET kwh = 1").await;
    done(&grid, &["--record"]).await;
    eventually("it holds again", async || {
        (watched(&api).await.0 == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_cannot_run_reports_why_and_gives_no_verdict() {
    let nothing = TempDir::new("nothing-runs");
    let output = program()
        .args(["audit", "--json"])
        .env("GRIDTOKENX_DATA_DIR", nothing.path())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(sentence.contains("make run"), "{sentence}");
}
