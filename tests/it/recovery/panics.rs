//! A defect that panics costs time, never a reading.

use serde_json::Value;

use crate::support::Grid;
use crate::support::consensus::under_each_consensus;

/// Panics at this point the first time that the process reaches it.
async fn is_minted_after_a_panic_at(point: &str) -> (Grid, Value) {
    let grid = Grid::without_service(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let failpoints = format!("{point}=1*panic(a defect)");
    let server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let meter = server.user("prosumer").meter().await;
    for _ in 0..4 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 4).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "4000000000");
    (grid, audit)
}

under_each_consensus!(
    a_handler_that_panics_leaves_the_reading_for_later,
    a_batch_that_panics_leaves_its_readings_for_later,
    a_record_that_panics_before_its_commit_leaves_nothing,
    a_send_that_panics_is_made_by_the_resolver,
    a_resolver_that_panics_is_started_again,
);

async fn a_handler_that_panics_leaves_the_reading_for_later() {
    let (grid, _) = is_minted_after_a_panic_at("queue.picked").await;
    let runs_max: i32 =
        sqlx::query_scalar("SELECT max(attempts) FROM apalis.jobs WHERE job_type = 'MintReading'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert!(runs_max > 1, "one of the jobs ran again");
    let attempts: i64 = sqlx::query_scalar("SELECT sum(attempts)::BIGINT FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(attempts, 0, "a defect is not a reading's fault");
}

async fn a_batch_that_panics_leaves_its_readings_for_later() {
    is_minted_after_a_panic_at("mint.signed").await;
}

async fn a_record_that_panics_before_its_commit_leaves_nothing() {
    is_minted_after_a_panic_at("ledger.before_record_commit").await;
}

async fn a_send_that_panics_is_made_by_the_resolver() {
    is_minted_after_a_panic_at("mint.before_send").await;
}

async fn a_resolver_that_panics_is_started_again() {
    is_minted_after_a_panic_at("ledger.before_confirm_commit").await;
}
