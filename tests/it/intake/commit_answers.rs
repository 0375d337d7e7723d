//! When the answer to the COMMIT that records a mint transaction is lost, the bytes are not sent, and nothing is lost or paid
//! twice, whether the database committed or not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::support::database_proxy::{Cut, DatabaseProxy};
use crate::support::proxy::carried_transaction;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy};

/// Signature of the transaction that `sendTransaction` carries.
fn signature_of(parameters: &serde_json::Value) -> Vec<u8> {
    let transaction = carried_transaction(parameters);
    transaction.signatures[0].as_ref().to_vec()
}

async fn nothing_is_lost_or_paid_twice_with(cut: Cut) {
    const READINGS: usize = 10;
    let chain = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(
        &chain.url,
        &[
            ("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", "3"),
            // The next batch can leave only after this one has ended.
            ("BLOCKCHAIN_CONCURRENT_BATCHES", "1"),
            ("TOKENIZATION_POLLING_INTERVAL_SECS", "5"),
        ],
    )
    .await;
    let database = DatabaseProxy::start(&grid.database_url).await;
    grid.database_url = database.url.clone();
    grid.serve().await;
    let meter = grid.meter().await;
    let sent = Arc::new(Mutex::new(HashSet::<Vec<u8>>::new()));
    {
        let sent = Arc::clone(&sent);
        chain.on_call(move |method, parameters| {
            if method == "sendTransaction" {
                sent.lock().unwrap().insert(signature_of(parameters));
            }
            CallAction::Forward
        });
    }

    database.cut_commits_of("INSERT INTO mint_transactions", cut, 2);
    for _ in 0..READINGS {
        meter.report("0.5").await;
    }
    grid.until_count("finalized", READINGS as i64).await;
    assert!(database.cuts() > 0, "a COMMIT was cut");
    let recorded: Vec<Vec<u8>> = sqlx::query_scalar("SELECT signature FROM mint_transactions")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    for signature in sent.lock().unwrap().iter() {
        assert!(
            recorded.contains(signature),
            "bytes were sent that no ledger knows"
        );
    }
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "5000000000");
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_before_its_commit() {
    nothing_is_lost_or_paid_twice_with(Cut::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_after_its_commit() {
    nothing_is_lost_or_paid_twice_with(Cut::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_falls_silent_before_its_commit() {
    nothing_is_lost_or_paid_twice_with(Cut::Lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_falls_silent_after_its_commit() {
    nothing_is_lost_or_paid_twice_with(Cut::Silence).await;
}
