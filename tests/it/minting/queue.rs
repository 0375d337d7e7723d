//! The queue may lose a job, run it twice, or crash while it runs: the sweep and the other processes still mint each reading once.

use serde_json::json;

use crate::support::database_proxy::DatabaseProxy;
use crate::support::proxy::{carried_transaction, instruction_with};
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_whose_job_is_lost_is_found_by_the_sweep() {
    let grid = Grid::start_with(&[
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
        ("MINT_LINGER_MS", "1000"),
    ])
    .await;
    let meter = grid.meter().await;
    meter.report("1").await;
    // While the minter lingers.
    sqlx::query("DELETE FROM apalis.jobs WHERE job_type = 'MintReading'")
        .execute(&grid.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE readings SET next_attempt_at = now() - INTERVAL '1 second'")
        .execute(&grid.pool)
        .await
        .unwrap();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_processes_each_tick_is_one_sweep() {
    let grid = Grid::without_service(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let _first = grid.spawn(&[]).await;
    let _second = grid.spawn(&[]).await;
    let ticks = async || -> Vec<(String, String, i32)> {
        sqlx::query_as(
            "SELECT idempotency_key, status, attempts
             FROM apalis.jobs
             WHERE job_type = 'SweepUnminted'
             ORDER BY idempotency_key",
        )
        .fetch_all(&grid.pool)
        .await
        .unwrap()
    };
    let done = eventually("four sweeps have run", async || {
        let done: Vec<_> = ticks()
            .await
            .into_iter()
            .filter(|tick| tick.1 == "Done")
            .collect();
        (done.len() >= 4).then_some(done)
    })
    .await;
    for (tick, _, attempts) in done {
        assert_eq!(attempts, 1, "{tick} ran once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auto_mint_off_readings_are_kept_and_not_minted() {
    let grid = Grid::start_with(&[
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
    ])
    .await;
    let meter = grid.meter().await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    eventually("their jobs and a sweep are done", async || {
        let done: i64 =
            sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'")
                .fetch_one(&grid.pool)
                .await
                .unwrap();
        (done >= 6).then_some(())
    })
    .await;
    assert_eq!(grid.count("pending").await, 5);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["outstanding"]["readings"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_killed_process_run_elsewhere() {
    let grid = Grid::without_service(&[]).await;
    let mut stuck = grid
        .spawn(&[("FAILPOINTS", "queue.picked=return(stall)")])
        .await;
    let meter = stuck.user("prosumer").meter().await;
    for _ in 0..8 {
        meter.report("1").await;
    }
    eventually("all eight jobs are claimed", async || {
        let claimed: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM apalis.jobs
             WHERE job_type = 'MintReading' AND status IN ('Queued', 'Running')",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (claimed == 8).then_some(())
    })
    .await;
    stuck.kill9().await;
    let _other = grid.spawn(&[]).await;
    grid.until_count("finalized", 8).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_is_killed_is_followed_by_another() {
    let grid = Grid::without_service(&[
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
        ("MINT_LINGER_MS", "500"),
    ])
    .await;
    let mut first = grid.spawn(&[]).await;
    let meter = first.user("prosumer").meter().await;
    let submissions: Vec<_> = (0..4).map(|_| meter.next_submission("1")).collect();
    let readings = json!({ "readings": submissions });
    meter
        .api
        .post("/api/meters/submit-readings", &readings)
        .await
        .ok();
    first.kill9().await;
    sqlx::query("DELETE FROM apalis.jobs WHERE job_type = 'MintReading'")
        .execute(&grid.pool)
        .await
        .unwrap();
    let mut sweeping = grid
        .spawn(&[("FAILPOINTS", "queue.sweep=return(kill)")])
        .await;
    assert!(
        !sweeping.ended().await.success(),
        "it was killed in its sweep"
    );
    let _next = grid.spawn(&[]).await;
    grid.until_count("finalized", 4).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_resumes_late_pays_nothing_twice() {
    let grid = Grid::without_service(&[]).await;
    let release = grid.data_dir.path().join("go on");
    let asleep = grid
        .spawn(&[
            ("FAILPOINTS", "mint.signed=1*return(stall)"),
            ("FAILPOINTS_RELEASE", release.to_str().unwrap()),
        ])
        .await;
    let meter = asleep.user("prosumer").meter().await;
    let mut readings = Vec::new();
    for _ in 0..6 {
        readings.push(meter.report("1").await);
    }
    // Another process gets the same readings while the first one holds signed bytes.
    let _other = grid.spawn(&[]).await;
    let ids: Vec<uuid::Uuid> = readings.iter().map(|id| id.parse().unwrap()).collect();
    eventually("the other process has them all", async || {
        sqlx::query(
            "UPDATE apalis.jobs
             SET status = 'Pending', lock_by = NULL, run_at = now()
             WHERE job_type = 'MintReading' AND status IN ('Queued', 'Running')
               AND idempotency_key IN (
                   SELECT id::TEXT FROM readings WHERE state = 'pending' AND id = ANY($1))",
        )
        .bind(&ids)
        .execute(&grid.pool)
        .await
        .unwrap();
        (grid.count("pending").await == 0).then_some(())
    })
    .await;
    std::fs::write(&release, "").unwrap();
    grid.until_count("finalized", 6).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "6000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_simulation_refuses_backs_off_and_fails_alone() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(
        &proxy.url,
        &[
            ("TOKENIZATION_INITIAL_RETRY_DELAY_SECS", "1"),
            ("TOKENIZATION_MAX_RETRY_ATTEMPTS", "1"),
            ("MINT_LINGER_MS", "300"),
        ],
    )
    .await;
    grid.serve().await;
    let (bad, good) = (grid.meter().await, grid.meter().await);
    let bad_wallet = solana_sdk::signature::Signer::pubkey(&bad.wallet);
    // Simulation refuses every payment to this one wallet.
    proxy.on_call(move |method, parameters| {
        if method != "simulateTransaction" {
            return CallAction::Forward;
        }
        let touched = instruction_with(&carried_transaction(parameters), &bad_wallet);
        match touched {
            None => CallAction::Forward,
            // The account is created by the instruction before the payment.
            Some(creation) => CallAction::Answer(json!({
                "context": { "slot": 1 },
                "value": {
                    "err": { "InstructionError": [creation + 1, { "Custom": 17 }] },
                    "logs": [], "accounts": null, "unitsConsumed": 0, "returnData": null
                }
            })),
        }
    });
    let refused = bad.report("1").await;
    for _ in 0..5 {
        good.report("1").await;
    }
    grid.until_count("finalized", 5).await;
    grid.until_count("failed", 1).await;
    let reading = bad.api.get(&format!("/api/readings/{refused}")).await.ok();
    assert_eq!(reading["attempts"], 2, "the first try and one retry");
    let error = reading["last_error"].as_str().unwrap();
    assert!(error.contains("simulation refused its payment"), "{error}");
    grid.audit_holds().await;
}

/// Only the database's clock decides what is due, because the clocks of hosts differ.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_ten_minutes_late_mints_at_once() {
    let mut grid = Grid::start().await;
    grid.stop().await;
    sqlx::raw_sql(
        "CREATE SCHEMA ahead;
         CREATE FUNCTION ahead.now() RETURNS TIMESTAMPTZ
         LANGUAGE sql STABLE
         AS $$ SELECT pg_catalog.now() + INTERVAL '10 minutes' $$;
         ALTER TABLE readings
             ALTER next_attempt_at SET DEFAULT ahead.now(),
             ALTER accepted_at SET DEFAULT ahead.now();
         DO $$
         BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path = public, ahead, pg_catalog', current_database());
         END
         $$",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_workers_that_wait_for_silent_sessions_are_restarted() {
    // What each of the three kinds of worker fetches its jobs with.
    const FETCH: &str = "apalis.get_jobs";
    const WORKERS: usize = 3;
    // TOKENIZATION_TRANSACTION_TIMEOUT_SECS is part of the time after which a worker counts as stuck.
    let grid = Grid::without_service(&[("TOKENIZATION_TRANSACTION_TIMEOUT_SECS", "3")]).await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;

    proxy.stall_at(FETCH, WORKERS);
    eventually("all are stuck", async || {
        (proxy.stalled_at(FETCH) == WORKERS).then_some(())
    })
    .await;
    meter.report("1").await;
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
}
