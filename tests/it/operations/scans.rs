//! Routine work scans no table in full, however much was ever minted: checked by Postgres' own statistics, which count the
//! rows that each statement really read.

use std::time::Duration;

use gridtokenx::meters::Role;
use sqlx::PgPool;

use crate::support::{Api, Grid, eventually};

/// Enough that the planner prefers an index where one exists.
const SETTLED: i64 = 100_000;
const READINGS_PER_TRANSACTION: i64 = 20;
/// Far above those that the service gives in this test.
const FIRST_NUMBER: i64 = 1_000_000;

/// Tables that grow with what was ever minted, and the jobs that are kept for ten minutes.
const GROWING: [&str; 4] = [
    "readings",
    "mint_transactions",
    "mint_transaction_readings",
    "jobs",
];

/// Inserts readings as if the service had settled them long ago and run their jobs just now.
async fn insert_settled(pool: &PgPool) {
    let statement = format!(
        "WITH meter AS (
             INSERT INTO meters (serial, owner, wallet, interval_minutes, rollout_bucket)
             VALUES ('settled', 'an owner', decode(repeat('07', 32), 'hex'), 15, 0)
             RETURNING id
         )
         INSERT INTO readings (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, state, accepted_at)
         SELECT md5('reading ' || number)::UUID, meter.id, now() - (number + 1) * INTERVAL '15 minutes',
                now() - number * INTERVAL '15 minutes', 1, 1000000000, decode(repeat('07', 32), 'hex'),
                decode(md5(number::TEXT), 'hex'), 'finalized', now() - number * INTERVAL '15 minutes'
         FROM meter, generate_series(1, {SETTLED}) AS number;
         INSERT INTO mint_transactions (number, signature, wire, merkle_root, base_units, blockhash, blockhash_slot,
                                        last_valid_block_height, endpoint, state, slot, fee_lamports, sent_at, confirmed_at,
                                        finalized_at, ended_at)
         SELECT {FIRST_NUMBER} + number, decode(repeat(md5(number::TEXT), 4), 'hex'), decode(repeat('00', 600), 'hex'),
                decode(repeat('00', 32), 'hex'), 20000000000, 'none', 1, 1, 'rpc-1', 'finalized', 1, 5000, now(), now(),
                now(), now()
         FROM generate_series(1, {SETTLED} / {READINGS_PER_TRANSACTION}) AS number;
         INSERT INTO mint_transaction_readings (transaction, reading)
         SELECT {FIRST_NUMBER} + 1 + (number - 1) / {READINGS_PER_TRANSACTION}, md5('reading ' || number)::UUID
         FROM generate_series(1, {SETTLED}) AS number;
         INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, idempotency_key)
         SELECT 'settled-' || number, 'MintReading', '', 'Done', 1, 25, now(), now(), md5('reading ' || number)::UUID::TEXT
         FROM generate_series(1, {SETTLED}) AS number;
         ANALYZE"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .unwrap();
}

/// Deletes them before the audit, which would not find them on chain.
async fn delete_settled(pool: &PgPool) {
    let statement = format!(
        // The product never deletes a reading, so no index serves the foreign key that each deletion checks.
        "CREATE INDEX ON mint_transaction_readings (reading);
         DELETE FROM mint_transaction_readings WHERE transaction > {FIRST_NUMBER};
         DELETE FROM mint_transactions WHERE number > {FIRST_NUMBER};
         DELETE FROM readings USING meters WHERE meters.id = readings.meter AND meters.serial = 'settled'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .unwrap();
}

/// Rows that scans from end to end have read, table by table, and how often an index of the readings was used.
async fn scanned(pool: &PgPool) -> (Vec<(String, i64)>, i64) {
    let scans: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT relname::TEXT, COALESCE(seq_tup_read, 0), COALESCE(idx_scan, 0)
         FROM pg_stat_user_tables
         WHERE relname = ANY($1)
         ORDER BY relname",
    )
    .bind(GROWING)
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(scans.len(), GROWING.len(), "{scans:?}");
    let of_readings = scans.iter().find(|(table, ..)| table == "readings");
    let index_scans = of_readings.map_or(0, |(_, _, index_scans)| *index_scans);
    let rows = scans
        .into_iter()
        .map(|(table, rows, _)| (table, rows))
        .collect();
    (rows, index_scans)
}

/// Sessions report their statistics once a second at most, and when they have been idle for ten.
const TOLD_AFTER: Duration = Duration::from_secs(11);

#[tokio::test(flavor = "multi_thread")]
async fn scrape_status_sweep_and_minting_scan_no_table() {
    let grid = Grid::without_service(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let server = grid.spawn(&[]).await;
    insert_settled(&grid.pool).await;
    let user = server.user("prosumer");
    let admin = Api::new(&server.api_url, "an admin", Role::Admin);
    let meter = user.meter().await;
    tokio::time::sleep(TOLD_AFTER).await;
    let (before, index_scans_before) = scanned(&grid.pool).await;

    let has_swept =
        |metrics: &str| metrics.contains("gridtokenx_sweep_last_finished_timestamp_seconds 1");
    for _ in 0..3 {
        let reading_id = meter.report("1").await;
        let listed = format!("/api/readings?meter_id={}", meter.serial);
        let listed = user.get(&listed).await.ok();
        assert!(listed.to_string().contains(&reading_id), "{listed}");
        for page in [
            "/api/admin/tokenization/status",
            "/api/readings?state=failed",
        ] {
            admin.get(page).await.ok();
        }
        eventually("it is finalized, and a scrape shows a sweep", async || {
            let reading = user.get(&format!("/api/readings/{reading_id}")).await.ok();
            let metrics = user.get_text("/metrics").await;
            (reading["state"] == "finalized" && has_swept(&metrics)).then_some(())
        })
        .await;
    }
    tokio::time::sleep(TOLD_AFTER).await;
    let (after, index_scans_after) = scanned(&grid.pool).await;

    assert!(index_scans_after > index_scans_before, "no index was used");
    for ((table, rows_before), (_, rows_after)) in before.iter().zip(&after) {
        let rows = rows_after - rows_before;
        assert!(
            rows < SETTLED / READINGS_PER_TRANSACTION,
            "{rows} rows of {table} were scanned"
        );
    }
    delete_settled(&grid.pool).await;
    grid.audit_holds().await;
}
