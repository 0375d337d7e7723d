//! The chain breaker as the status page shows it.

use serde_json::Value;

use super::{Api, Grid, eventually};

/// What `GET /api/admin/tokenization/status` reports about the chain.
pub async fn chain_of(admin: &Api) -> Value {
    let status = admin.get("/api/admin/tokenization/status").await.ok();
    status["chain"].clone()
}

/// Waits until the chain breaker is open for this cause.
pub async fn until_open(admin: &Api, trouble: &str) -> Value {
    eventually(
        &format!("the chain breaker is open: {trouble}"),
        async || {
            let chain = chain_of(admin).await;
            (chain["trouble"] == trouble).then_some(chain)
        },
    )
    .await
}

pub async fn until_closed(admin: &Api) {
    eventually("the chain breaker is closed", async || {
        (chain_of(admin).await["state"] == "closed").then_some(())
    })
    .await;
}

/// Waits until that many readings are finalized. None of them has used an attempt, and the audit, whose report is returned,
/// holds.
pub async fn are_minted_without_an_attempt(grid: &Grid, readings: i64) -> Value {
    grid.until_count("finalized", readings).await;
    no_attempt_is_used(grid).await;
    grid.audit_holds().await
}

pub async fn no_attempt_is_used(grid: &Grid) {
    let attempts: i64 =
        sqlx::query_scalar("SELECT COALESCE(sum(attempts), 0)::BIGINT FROM readings")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(attempts, 0, "no attempt is used");
}
