//! The ledger's row, as the database holds it.

use super::{Grid, eventually};

/// State and reason of the ledger breaker.
pub async fn breaker(grid: &Grid) -> (String, Option<String>) {
    sqlx::query_as("SELECT breaker, breaker_reason FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

pub async fn until_breaker(grid: &Grid, state: &str) {
    eventually(&format!("the breaker is {state}"), async || {
        (breaker(grid).await.0 == state).then_some(())
    })
    .await;
}

/// Rises with every transaction that the Minter wants to sign.
pub async fn next_number(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT next_number FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}
