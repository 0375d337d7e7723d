//! The ledger's row, as the database holds it.

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;

use super::world::world;
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

/// Waits until the authority's history was scanned once: nothing is recorded before, and a service accepts readings meanwhile.
pub async fn until_history_scanned(grid: &Grid) {
    eventually("the history is scanned", async || {
        let scanned: Option<bool> = sqlx::query_scalar("SELECT watermark_slot > 0 FROM ledger")
            .fetch_optional(&grid.pool)
            .await
            .unwrap();
        (scanned == Some(true)).then_some(())
    })
    .await;
}

/// Waits until the service that `grid` serves has seen that it may sign, so that a rule of a proxy that comes now meets minting, not
/// the first scan.
pub async fn until_signing_is_allowed(grid: &Grid) {
    until_history_scanned(grid).await;
    eventually("the service may sign", async || {
        let ready = grid.admin().get("/health/ready").await;
        (ready.body["checks"]["breaker"]["status"] == "ok").then_some(())
    })
    .await;
}

/// Rises with every transaction that the minter wants to sign.
pub async fn next_number(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT next_number FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

/// Waits until the chain is this many blocks past the end of every recorded transaction's life.
pub async fn until_past_expiry(grid: &Grid, blocks: u64) {
    let rpc = RpcClient::new(world().rpc_url().to_owned());
    eventually("what is recorded has expired", async || {
        let last_valid: Option<i64> =
            sqlx::query_scalar("SELECT max(last_valid_block_height) FROM mint_transactions")
                .fetch_one(&grid.pool)
                .await
                .unwrap();
        let processed = CommitmentConfig::processed();
        let height = rpc.get_block_height_with_commitment(processed).await.ok()?;
        (height > last_valid? as u64 + blocks).then_some(())
    })
    .await;
}
