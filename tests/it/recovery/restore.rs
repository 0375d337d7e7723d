//! After a database went back to an earlier state, nothing is paid a second time.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gridtokenx::domain::signed_bytes;
use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;

use crate::support::admin_log::admin_log;
use crate::support::audit::{difference, done, refused};
use crate::support::authority::Authority;
use crate::support::consensus::under_each_consensus;
use crate::support::ledger::{breaker, next_number, until_breaker};
use crate::support::localnet::TempDir;
use crate::support::stored_events::notifications;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

/// What the service sees after a restore or a fail-over: the cluster is not the one that the ledger has stored.
async fn become_another_cluster(grid: &Grid) {
    sqlx::query("UPDATE ledger SET system_identifier = system_identifier - 1")
        .execute(&grid.pool)
        .await
        .unwrap();
}

under_each_consensus!(
    after_a_fail_over_nothing_is_signed_until_what_was_sent_before_is_known,
    a_restored_database_does_not_pay_what_was_in_flight,
);

async fn after_a_fail_over_nothing_is_signed_until_what_was_sent_before_is_known() {
    let (mut grid, meter) = Grid::with_one_payment().await;

    // Noticed by the next process that signs, in the transaction that would record it.
    become_another_cluster(&grid).await;
    meter.report("1").await;
    until_breaker(&grid, "identity").await;
    assert_eq!(grid.count("pending").await, 1);
    grid.stop().await;
    grid.serve().await;

    let closes_after: i64 = eventually("the height is fixed", async || {
        sqlx::query_scalar("SELECT breaker_closes_after_height FROM ledger")
            .fetch_one(&grid.pool)
            .await
            .unwrap()
    })
    .await;
    until_breaker(&grid, "closed").await;
    let height = RpcClient::new(grid.rpc_url.clone())
        .get_block_height_with_commitment(CommitmentConfig::finalized())
        .await
        .unwrap();
    assert!(height as i64 > closes_after);
    grid.until_count("finalized", 2).await;
    assert_eq!(notifications(&grid).await, 1, "notified once");
    grid.audit_holds().await;
}

async fn a_restored_database_does_not_pay_what_was_in_flight() {
    let mut grid = Grid::without_service(&[
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
    ])
    .await;
    let mut server = grid.spawn(&[]).await;
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    server.kill9().await;

    // The backup: the reading is accepted, nothing is signed.
    let restored_url = grid.copy_database("restored").await;

    // The original signs and records, and is killed before it sends.
    grid.pool = PgPool::connect(&grid.database_url).await.unwrap();
    enable_minting(&grid).await;
    sqlx::query("UPDATE ledger SET next_number = 1000")
        .execute(&grid.pool)
        .await
        .unwrap();
    let mut server = grid
        .spawn(&[("FAILPOINTS", "ledger.recorded=return(kill)")])
        .await;
    assert!(!server.ended().await.success());
    let signed_bytes: Vec<u8> = sqlx::query_scalar("SELECT wire FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let in_flight = signed_bytes::decode(&signed_bytes).unwrap();
    let authority = Authority::of(&grid).await;

    // The restored database replaces it; then the bytes land.
    grid.move_to(&restored_url).await;
    become_another_cluster(&grid).await;
    enable_minting(&grid).await;
    grid.serve().await;
    assert_eq!(breaker(&grid).await.0, "identity");
    let signature = authority.send_late(&in_flight).await;
    authority.until_finalized(&signature).await;

    until_breaker(&grid, "mismatch").await;
    let (_, reason) = breaker(&grid).await;
    assert!(reason.unwrap().contains(&signature.to_string()));
    assert_eq!(grid.count("pending").await, 1, "the reading waits");
    let signed: i64 = sqlx::query_scalar("SELECT count(*) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(signed, 0);
    assert_eq!(authority.supply().await, 1_000_000_000);
    let next = next_number(&grid).await;
    assert!(next > 1_000, "{next}: numbers go on above those on chain");
    let report = grid.audit().await;
    let unknown = difference(&report, "unknown_mint");
    assert_eq!(unknown["signature"], signature.to_string());

    // The reading is in this database: the mint is booked for it, and it is not paid again.
    let signature = signature.to_string();
    let report = done(&grid, &["--adopt", &signature]).await;
    assert_eq!(report["foreign"], serde_json::json!([]));
    grid.until_count("finalized", 1).await;
    let (actor, action, details) = admin_log(&grid).await.remove(0);
    assert_eq!(
        (actor.as_str(), action.as_str()),
        ("operator ann", "adopt_mint")
    );
    assert_eq!(details["readings"], 1);
    let again = refused(&grid, &["--adopt", &signature]).await;
    assert!(again.contains("it pays readings"), "{again}");
    until_breaker(&grid, "closed").await;
    assert_eq!(authority.supply().await, 1_000_000_000);
    meter.at(&grid.user("prosumer")).report("2").await;
    grid.until_count("finalized", 2).await;
    assert_eq!(authority.supply().await, 3_000_000_000);
    grid.audit_holds().await;
    grid.stop().await;
}

async fn enable_minting(grid: &Grid) {
    sqlx::query("UPDATE settings SET auto_mint_enabled = TRUE")
        .execute(&grid.pool)
        .await
        .unwrap();
}

/// A dump that is restored beside the original, or in its place, is in the same cluster on the same timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_database_in_the_same_cluster_is_another_database() {
    let (mut grid, _) = Grid::with_one_payment().await;
    grid.stop().await;
    let copy = grid.copy_database("copy").await;
    grid.move_to(&copy).await;
    grid.serve().await;
    let (state, reason) = breaker(&grid).await;
    assert_eq!(state, "identity");
    assert!(reason.unwrap().contains("restored"));
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_is_detected_while_nothing_is_signed() {
    let mut grid = Grid::start().await;
    eventually("the resolver has scanned the history", async || {
        let watermark: i64 = sqlx::query_scalar("SELECT watermark_slot FROM ledger")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (watermark > 0).then_some(())
    })
    .await;
    // The checks at the start have ended by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    become_another_cluster(&grid).await;
    let changed = Instant::now();
    until_breaker(&grid, "identity").await;
    let took = changed.elapsed();
    assert!(took < Duration::from_secs(20), "noticed after {took:?}");
    grid.stop().await;
}

/// A process that opens the breaker waits for transactions that record at that moment, not for later ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_while_others_record_all_the_time() {
    const RECORDERS: u32 = 20;
    let mut grid = Grid::start().await;
    grid.stop().await;
    let pool = PgPoolOptions::new()
        .max_connections(RECORDERS + 2)
        .connect(&grid.database_url)
        .await
        .unwrap();
    become_another_cluster(&grid).await;
    let stop = CancellationToken::new();
    let mut recorders = tokio::task::JoinSet::new();
    for _ in 0..RECORDERS {
        let (pool, stop) = (pool.clone(), stop.clone());
        recorders.spawn(async move {
            while !stop.is_cancelled() {
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query("SELECT FROM ledger FOR KEY SHARE")
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                // What a record takes on a database with a synchronous standby.
                sqlx::query("SELECT pg_sleep(0.03 + random() * 0.04)")
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let refused = gridtokenx::ledger::may_sign(&pool, None).await;
    let took = began.elapsed();
    stop.cancel();
    while let Some(ended) = recorders.join_next().await {
        ended.unwrap();
    }
    assert!(refused.is_err());
    assert_eq!(breaker(&grid).await.0, "identity");
    assert!(took < Duration::from_secs(5), "opened after {took:?}");
}

/// The database was lost and replaced by an empty one: meters report again what the chain has paid long ago.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_whose_history_was_never_scanned_signs_nothing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    proxy.on_call(|method, _| match method {
        "getSignaturesForAddress" => CallAction::Error(-32601, "Method not found"),
        _ => CallAction::Forward,
    });
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    until_refused(&grid, "Method not found").await;
    assert_eq!(grid.count("pending").await, 1);
    assert_eq!(next_number(&grid).await, 1, "nothing was even prepared");
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
    grid.stop().await;
}

/// Waits until readiness reports why the service signs nothing.
async fn until_refused(grid: &Grid, reason: &str) {
    let admin = grid.admin();
    grid.until(&format!("nothing is signed: {reason}"), async || {
        let ready = admin.get("/health/ready").await;
        let breaker = &ready.body["checks"]["breaker"];
        breaker["status"] == "degraded" && breaker.to_string().contains(reason)
    })
    .await;
}

/// The database was lost, and the only endpoint no longer has the history of the payments.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_ledger_signs_nothing_while_no_endpoint_has_the_whole_history_of_the_mint() {
    let (mut grid, meter) = Grid::with_one_payment().await;
    grid.stop().await;
    let authority = Authority::of(&grid).await;
    let paid_in: i64 = sqlx::query_scalar("SELECT slot FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();

    let name = format!("grid_{}_new", uuid::Uuid::now_v7().simple());
    let empty = world().cluster.create_database(&name).await.unwrap();
    grid.move_to(&empty).await;
    let proxy = Proxy::start(world().rpc_url()).await;
    grid.rpc_url = proxy.url.clone();
    // It shows the mint's creation, and not what our authority minted.
    let address = authority.payer().to_string();
    proxy.on_call(move |method, parameters| {
        if method == "getSignaturesForAddress" && parameters[0] == address.as_str() {
            CallAction::Answer(serde_json::json!([]))
        } else {
            CallAction::Forward
        }
    });
    grid.serve().await;
    until_refused(&grid, "has a supply of 1000000000 base units").await;

    proxy.on_call(move |_, _| CallAction::Prune {
        before_slot: paid_in as u64 + 1,
    });
    until_refused(&grid, "from its creation on").await;
    // The supply does not include burned tokens: that the supply is accounted for proves nothing.
    authority.burn(&meter, 1_000_000_000).await;
    assert_eq!(authority.supply().await, 0);
    let lists = proxy.received("getSignaturesForAddress");
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until("it was scanned twice more", async || {
        proxy.received("getSignaturesForAddress") > lists + 2
    })
    .await;
    until_refused(&grid, "from its creation on").await;
    assert_eq!(grid.count("pending").await, 1);
    assert_eq!(next_number(&grid).await, 1, "nothing was even prepared");

    proxy.forward_everything();
    until_breaker(&grid, "mismatch").await;
    assert_eq!(grid.count("pending").await, 1);
    assert_eq!(authority.supply().await, 0);
    grid.stop().await;
}

/// The statement for operators who have put files back in a way that the database cannot detect: docs/operations.md.
const FILES_WERE_PUT_BACK: &str = "UPDATE ledger SET server_start = -1;";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_declares_that_the_database_went_backwards() {
    let manual = include_str!("../../../docs/operations.md");
    assert!(manual.contains(FILES_WERE_PUT_BACK));
    let mut grid = Grid::start().await;
    grid.stop().await;
    sqlx::raw_sql(FILES_WERE_PUT_BACK)
        .execute(&grid.pool)
        .await
        .unwrap();
    grid.serve().await;
    let (state, reason) = breaker(&grid).await;
    assert_eq!(state, "identity");
    assert!(reason.unwrap().contains("put back"));
    until_breaker(&grid, "closed").await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.stop().await;
}

/// A volume is set back to a snapshot: identifier, timeline and oids are the same as before.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_put_back_do_not_pay_what_was_in_flight() {
    let dir = TempDir::new("put-back");
    let files = dir.path().join("postgres");
    let options = PostgresOptions {
        fsync: false,
        ..PostgresOptions::durable(&files)
    };
    let cluster = PostgresCluster::start(options.clone()).await.unwrap();
    let url = cluster.create_database("elsewhere").await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    // As on a server that is not our private cluster.
    sqlx::query("ALTER DATABASE elsewhere SET gridtokenx.private_cluster = 'off'")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let settings = [
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
    ];
    let mut grid = Grid::on(&url, world().rpc_url(), &settings).await;
    let mut server = grid.spawn(&[]).await;
    server.user("prosumer").meter().await.report("1").await;
    server.kill9().await;
    grid.pool.close().await;
    cluster.stop().await;
    let snapshot = dir.path().join("snapshot");
    copy(&files, &snapshot);

    // It continues: a mere restart only pauses signing for a while. Then a transaction is signed and not sent yet.
    let cluster = PostgresCluster::start(options.clone()).await.unwrap();
    grid.pool = PgPool::connect(&url).await.unwrap();
    enable_minting(&grid).await;
    let mut server = grid
        .spawn(&[("FAILPOINTS", "ledger.recorded=return(kill)")])
        .await;
    let (state, reason) = breaker(&grid).await;
    assert_eq!(state, "identity");
    assert!(reason.unwrap().contains("restarted"));
    assert!(!server.ended().await.success());
    assert_eq!(breaker(&grid).await.0, "closed");
    let signed_bytes: Vec<u8> = sqlx::query_scalar("SELECT wire FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let in_flight = signed_bytes::decode(&signed_bytes).unwrap();
    let authority = Authority::of(&grid).await;
    grid.pool.close().await;
    cluster.stop().await;
    std::fs::rename(&files, dir.path().join("lost")).unwrap();
    std::fs::rename(&snapshot, &files).unwrap();

    let cluster = PostgresCluster::start(options).await.unwrap();
    grid.pool = PgPool::connect(&url).await.unwrap();
    enable_minting(&grid).await;
    let signature = authority.send_late(&in_flight).await;
    grid.serve().await;
    until_breaker(&grid, "mismatch").await;
    let waits: bool =
        sqlx::query_scalar("SELECT breaker_closes_after_height IS NOT NULL FROM ledger")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert!(waits, "it was open before the mint was known");
    assert_eq!(grid.count("pending").await, 1, "the reading waits");
    done(&grid, &["--adopt", &signature.to_string()]).await;
    grid.until_count("finalized", 1).await;
    assert_eq!(authority.supply().await, 1_000_000_000);
    grid.stop().await;
    grid.pool.close().await;
    cluster.stop().await;
}

/// With owners and permissions.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}
