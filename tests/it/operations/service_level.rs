//! The service levels are measured correctly: held readings do not count as late, late ones do, and probes and scrapes are
//! not counted as requests.

use crate::support::client::Api;
use crate::support::metrics::value;
use crate::support::{Grid, eventually};

const KEPT: &str = r#"gridtokenx_mint_promises_total{outcome="kept"}"#;
const LATE: &str = r#"gridtokenx_mint_promises_total{outcome="late"}"#;
const OVERDUE: &str = "gridtokenx_overdue_readings_count";
const HELD: &str = "gridtokenx_held_readings_count";

async fn until(api: &Api, series: &str, wanted: f64) {
    eventually(&format!("{series} is {wanted}"), async || {
        (value(api, series).await == wanted).then_some(())
    })
    .await;
}

/// Waits until the job of the only reading has ended. A job that runs after minting was switched on could be deferred until the
/// reading is due; it would count as live then, and the sweep would pass the reading over.
async fn until_its_job_is_done(grid: &Grid) {
    grid.until("the reading's job is done", async || {
        let statuses: Vec<String> =
            sqlx::query_scalar("SELECT status FROM apalis.jobs WHERE job_type = 'MintReading'")
                .fetch_all(&grid.pool)
                .await
                .unwrap();
        statuses == ["Done"]
    })
    .await;
}

async fn with_minting_off() -> Grid {
    Grid::without_service(&[
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_reading_is_not_overdue_and_its_time_counts_from_its_release() {
    let grid = with_minting_off().await;
    let server = grid.spawn(&[]).await;
    let api = server.user("prosumer");
    let meter = api.meter().await;
    meter.report("1").await;
    meter.report("2").await;
    grid.execute("UPDATE readings SET accepted_at = accepted_at - INTERVAL '1 hour'")
        .await;
    grid.execute("UPDATE settings SET changed_at = now() - INTERVAL '1 hour'")
        .await;
    until(&api, HELD, 2.0).await;
    assert_eq!(value(&api, OVERDUE).await, 0.0);

    grid.execute("UPDATE settings SET auto_mint_enabled = TRUE, changed_at = now()")
        .await;
    until(&api, KEPT, 2.0).await;
    assert_eq!(value(&api, LATE).await, 0.0);
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_waits_for_the_service_is_overdue_and_then_late() {
    let grid = with_minting_off().await;
    let server = grid.spawn(&[]).await;
    let api = server.user("prosumer");
    api.meter().await.report("1").await;
    until_its_job_is_done(&grid).await;
    grid.execute(
        "UPDATE readings SET accepted_at = accepted_at - INTERVAL '1 hour',
                             next_attempt_at = now() + INTERVAL '1 hour'",
    )
    .await;
    grid.execute(
        "UPDATE settings SET auto_mint_enabled = TRUE, changed_at = now() - INTERVAL '1 hour'",
    )
    .await;
    until(&api, OVERDUE, 1.0).await;

    grid.execute("UPDATE readings SET next_attempt_at = now()")
        .await;
    until(&api, LATE, 1.0).await;
    assert_eq!(value(&api, KEPT).await, 0.0);
    until(&api, OVERDUE, 0.0).await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_scrapes_are_not_counted_among_the_requests() {
    let grid = with_minting_off().await;
    let server = grid.spawn(&[]).await;
    let api = server.user("prosumer");
    let answered = r#"gridtokenx_http_requests_total{status="2xx"}"#;
    api.get("/health/live").await.ok();
    api.get("/health/ready").await.ok();
    assert_eq!(value(&api, answered).await, 0.0);
    assert_eq!(value(&api, answered).await, 0.0);
    api.get("/api/meters").await.ok();
    assert_eq!(value(&api, answered).await, 1.0);
}
