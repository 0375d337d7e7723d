//! An incremental audit costs what is new and a sample of the old, and misses neither.

use serde_json::Value;

use crate::support::audit::{audit_with, difference, done, refused};
use crate::support::world::world;
use crate::support::{Grid, Proxy};

/// A recorded full audit of two readings, then two more readings. The audits go through the proxy.
async fn with_checkpoint() -> (Grid, Proxy) {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    for _ in 0..2 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 2).await;
    until_far_behind(&grid).await;
    let full = done(&grid, &["--record"]).await;
    assert_eq!(full["scope"], "full");
    for _ in 0..2 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 4).await;
    grid.stop().await;
    let proxy = Proxy::start(world().rpc_url()).await;
    grid.rpc_url = proxy.url.clone();
    (grid, proxy)
}

/// A checkpoint stays 32 slots behind what is final.
async fn until_far_behind(grid: &Grid) {
    let rpc = solana_client::nonblocking::rpc_client::RpcClient::new(grid.rpc_url.clone());
    let landed: i64 = sqlx::query_scalar("SELECT max(slot) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    grid.until("32 more slots are final", async || {
        let slot = rpc
            .get_slot_with_commitment(solana_commitment_config::CommitmentConfig::finalized())
            .await
            .unwrap();
        slot > landed as u64 + 32
    })
    .await;
}

async fn covered(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT COALESCE(sum(transactions), 0)::BIGINT FROM audit_checkpoints")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compared_once_is_not_read_again() {
    let (grid, proxy) = with_checkpoint().await;
    let old = covered(&grid).await;
    assert!(old > 0);
    let report = done(&grid, &["--record", "--incremental", "--sample", "0"]).await;
    assert_eq!(report["scope"], "incremental");
    assert_eq!(report["readings_finalized"], 4);
    assert_eq!(report["base_units_chain"], "4000000000");
    assert_eq!(
        proxy.received("getTransaction"),
        0,
        "the list and the signed bytes prove what is new"
    );
    until_far_behind(&grid).await;
    done(&grid, &["--record", "--incremental", "--sample", "0"]).await;
    assert!(covered(&grid).await > old, "the checkpoints were extended");
    // The sums stay those of everything.
    let report = done(&grid, &["--record", "--incremental"]).await;
    assert_eq!(report["readings_finalized"], 4);
    let full = grid.audit_holds().await;
    assert_eq!(full["base_units_chain"], report["base_units_chain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_old_and_of_the_new_is_found() {
    let (grid, _proxy) = with_checkpoint().await;
    let incremental = async || {
        let output = audit_with(&grid, &["--incremental"]).await;
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    grid.execute("CREATE TABLE before AS TABLE mint_transactions")
        .await;
    grid.execute("UPDATE mint_transactions SET merkle_root = decode(repeat('07', 32), 'hex') WHERE number = (SELECT min(number) FROM mint_transactions)")
        .await;
    let report = incremental().await;
    difference(&report, "checkpoint_differs");
    difference(&report, "wrong_root");
    grid.execute("UPDATE mint_transactions SET merkle_root = before.merkle_root FROM before WHERE before.number = mint_transactions.number")
        .await;
    assert_eq!(incremental().await["ok"], true);

    grid.execute("UPDATE mint_transactions SET merkle_root = decode(repeat('07', 32), 'hex') WHERE number = (SELECT max(number) FROM mint_transactions)")
        .await;
    difference(&incremental().await, "wrong_root");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_was_recorded_is_found_again_by_the_next_audit() {
    let (grid, _proxy) = with_checkpoint().await;
    grid.execute("UPDATE mint_transactions SET merkle_root = decode(repeat('07', 32), 'hex') WHERE number = (SELECT min(number) FROM mint_transactions)")
        .await;
    for _ in 0..2 {
        let record = ["--record", "--incremental", "--sample", "0"];
        let output = audit_with(&grid, &record).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], false, "{report:#}");
    }
    assert_eq!(
        covered(&grid).await,
        0,
        "nothing counts as settled any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_recorded_audits_at_once_cover_nothing_twice() {
    let (grid, _proxy) = with_checkpoint().await;
    until_far_behind(&grid).await;
    let record = ["--record", "--incremental", "--sample", "0"];
    let (one, other) = tokio::join!(audit_with(&grid, &record), audit_with(&grid, &record));
    let statuses = [one.status.code(), other.status.code()];
    assert!(statuses.contains(&Some(0)), "{statuses:?}");
    assert_eq!(covered(&grid).await, transactions(&grid).await);
    let report = done(&grid, &record).await;
    assert_eq!(report["base_units_chain"], "4000000000");
    assert_eq!(report["readings_finalized"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_waited_for_another_one_stores_nothing() {
    let (grid, _proxy) = with_checkpoint().await;
    let mut other = grid.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM audit_runs FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let waiting = async {
        let record = ["--record", "--incremental", "--sample", "0"];
        refused(&grid, &record).await
    };
    let extending = async {
        grid.until("the audit waits for the lock", async || {
            sqlx::query_scalar(
                "SELECT EXISTS (
                     SELECT
                     FROM pg_stat_activity
                     WHERE datname = current_database()
                       AND application_name = 'gridtokenx audit'
                       AND wait_event_type = 'Lock'
                 )",
            )
            .fetch_one(&grid.pool)
            .await
            .unwrap()
        })
        .await;
        // What another audit stores.
        sqlx::raw_sql(
            "INSERT INTO audit_checkpoints
                 (run, first_number, last_number, transactions, readings, base_units, chain_hash)
             SELECT run, last_number + 1, last_number + 1, 0, 0, 0, chain_hash
             FROM audit_checkpoints
             ORDER BY id DESC
             LIMIT 1;
             UPDATE audit_runs SET slot = slot + 1",
        )
        .execute(&mut *other)
        .await
        .unwrap();
        other.commit().await.unwrap();
    };
    let before = covered(&grid).await;
    let (sentence, ()) = tokio::join!(waiting, extending);
    assert!(sentence.contains("another recorded audit"), "{sentence}");
    assert_eq!(covered(&grid).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_that_a_full_audit_recorded_is_found_again_by_an_incremental_one() {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(meter.report("1").await);
    }
    grid.until_count("finalized", 2).await;
    // Far enough for a checkpoint.
    until_far_behind(&grid).await;
    grid.stop().await;
    overlap(&grid, &ids[0], &ids[1]).await;
    for record in [&["--record"][..], &["--record", "--incremental"]] {
        let output = audit_with(&grid, record).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        difference(&report, "overlap");
    }
    let recorded: Vec<i64> =
        sqlx::query_scalar("SELECT differences FROM recorded_audits ORDER BY id")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert!(
        recorded.len() == 2 && !recorded.contains(&0),
        "{recorded:?}"
    );
}

async fn transactions(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM mint_transactions WHERE state <> 'dead'")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_no_number_and_two_paid_intervals_that_overlap_are_named() {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(meter.report("1").await);
    }
    grid.until_count("finalized", 2).await;
    grid.stop().await;
    set_kwh(&grid, &ids[0], "NaN").await;
    let report = grid.audit().await;
    let unreadable = difference(&report, "unreadable_reading");
    assert_eq!(unreadable["reading_id"], ids[0].as_str());
    assert!(unreadable["message"].as_str().unwrap().contains("NaN"));
    set_kwh(&grid, &ids[0], "1").await;
    overlap(&grid, &ids[0], &ids[1]).await;
    let report = grid.audit().await;
    let overlap = difference(&report, "overlap");
    let named = [&overlap["reading_id"], &overlap["other"]];
    assert!(
        ids.iter()
            .all(|id| named.iter().any(|name| **name == id.as_str()))
    );
}

/// Moves the interval of the first reading into that of the second.
async fn overlap(grid: &Grid, reading: &str, other: &str) {
    sqlx::query(
        "UPDATE readings
         SET interval_start = other.interval_start + INTERVAL '1 minute', interval_end = other.interval_end
         FROM readings AS other
         WHERE readings.id = $1::UUID AND other.id = $2::UUID",
    )
    .bind(reading)
    .bind(other)
    .execute(&grid.pool)
    .await
    .unwrap();
}

async fn set_kwh(grid: &Grid, reading: &str, kwh: &str) {
    sqlx::query("UPDATE readings SET kwh = $2::NUMERIC WHERE id = $1::UUID")
        .bind(reading)
        .bind(kwh)
        .execute(&grid.pool)
        .await
        .unwrap();
}
