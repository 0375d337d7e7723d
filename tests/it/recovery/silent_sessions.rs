//! A session of the database that falls silent without closing stops no loop for longer than one
//! transaction may take, and uses up no connection of the pool.

use std::time::{Duration, Instant};

use crate::support::database_proxy::DatabaseProxy;
use crate::support::events::{events_of, publish, until_numbered};
use crate::support::{Grid, eventually};

/// TOKENIZATION_TRANSACTION_TIMEOUT_SECS of these tests.
const LIMIT_SECS: &str = "3";
/// Two of these limits, the end of the silent session on the server, and what a busy machine adds.
const GOES_ON_WITHIN: Duration = Duration::from_secs(30);

/// The sequencer's lock on the head of the feed.
const FENCE: &str = "UPDATE feed_head SET last_seq = last_seq";
/// The resolver's work list.
const WORK_LIST: &str = "EXTRACT(EPOCH FROM now() - recorded_at)";
/// Lamports that the fee payer has in flight, in the ledger's minting conditions.
const IN_FLIGHT: &str = "state <> 'confirmed' OR slot > $1";
/// The hub's pages of the log.
const PAGE: &str = "FROM feed_head AS head";

async fn grid() -> Grid {
    Grid::without_service(&[
        ("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", LIMIT_SECS),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "2"),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_numbered_again_when_the_sequencers_session_falls_silent() {
    let grid = grid().await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let _server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    until_numbered(&grid.pool, 1).await;

    proxy.stall_at(FENCE, 1);
    let silent_since = Instant::now();
    publish(&grid.pool, &events_of("anna", 5)).await;
    until_numbered(&grid.pool, 6).await;

    assert_eq!(proxy.stalled_at(FENCE), 1);
    assert!(
        silent_since.elapsed() < GOES_ON_WITHIN,
        "{:?}",
        silent_since.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_are_finalized_when_the_resolvers_sessions_fall_silent() {
    let grid = grid().await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;

    // The status rounds, and the search for proofs of expiry.
    proxy.stall_at(WORK_LIST, 4);
    let silent_since = Instant::now();
    meter.report("1").await;
    grid.until_count("finalized", 2).await;

    assert!(proxy.stalled_at(WORK_LIST) > 0);
    assert!(
        silent_since.elapsed() < GOES_ON_WITHIN,
        "{:?}",
        silent_since.elapsed()
    );
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_conditions_of_the_ledger_count_until_it_answers_again() {
    let grid = grid().await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let api = server.user("an operator");
    sqlx::raw_sql(
        "INSERT INTO foreign_mints (signature, slot, base_units) VALUES ('by hand', 1, 1);
         UPDATE ledger SET breaker = 'mismatch', breaker_reason = 'a test', breaker_opened_at = now()",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let breaker = async || api.get("/health/ready").await.body["checks"]["breaker"].clone();
    let open = eventually("the breaker is seen", async || {
        let breaker = breaker().await;
        (breaker["status"] == "degraded").then_some(breaker)
    })
    .await;

    proxy.stall_at(IN_FLIGHT, 2);
    eventually("two queries are left without an answer", async || {
        assert_eq!(breaker().await, open);
        (proxy.stalled_at(IN_FLIGHT) == 2).then_some(())
    })
    .await;
    sqlx::raw_sql("UPDATE foreign_mints SET booked_reason = 'a test'")
        .execute(&grid.pool)
        .await
        .unwrap();
    eventually("its end is seen", async || {
        (breaker().await["status"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loop_queries_again_when_its_session_falls_silent() {
    const STATEMENTS: [&str; 9] = [
        FENCE,
        "SELECT EXISTS (SELECT 1 FROM outbox)",
        PAGE,
        WORK_LIST,
        "WITH folded AS",
        IN_FLIGHT,
        // Jobs of workers and processes that have ended.
        "id <> ALL($2)",
        "SELECT number, worker_prefix",
        // The tick of the sweep.
        "run_at > now() - INTERVAL '5 minutes'",
    ];
    let grid = grid().await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let _server = grid
        .spawn(&[
            ("DATABASE_URL", &proxy.url),
            ("DATABASE_MAX_CONNECTIONS", "30"),
        ])
        .await;
    for statement in STATEMENTS {
        proxy.stall_at(statement, 1);
    }
    // The sequencer queries only when there is an event.
    publish(&grid.pool, &events_of("anna", 1)).await;
    for statement in STATEMENTS {
        eventually(
            &format!("a session falls silent: {statement}"),
            async || (proxy.stalled_at(statement) == 1).then_some(()),
        )
        .await;
        let runs = proxy.runs_of(statement);
        eventually(&format!("it is queried again: {statement}"), async || {
            (proxy.runs_of(statement) > runs).then_some(())
        })
        .await;
    }
    until_numbered(&grid.pool, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_fall_silent_one_after_the_other_do_not_use_up_the_pool() {
    const CONNECTIONS: &str = "10";
    const SILENT: usize = 12;
    let grid = grid().await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let server = grid
        .spawn(&[
            ("DATABASE_URL", &proxy.url),
            ("DATABASE_MAX_CONNECTIONS", CONNECTIONS),
            ("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", "1"),
        ])
        .await;
    let meter = server.user("prosumer").meter().await;

    proxy.stall_at(PAGE, SILENT);
    eventually("more of them than the pool has", async || {
        (proxy.stalled_at(PAGE) == SILENT).then_some(())
    })
    .await;

    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}
