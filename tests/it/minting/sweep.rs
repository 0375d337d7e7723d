//! The sweep finds readings without a job: one run per tick over all processes, in bounded steps, and never a held reading.

use std::time::Duration;

use gridtokenx::meters::Role;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::chain_breaker::until_open;
use crate::support::readings::count;
use crate::support::world::world;
use crate::support::{Api, Grid, ProxyProgram, eventually, insert_backlog};

const EACH_SECOND: (&str, &str) = ("TOKENIZATION_POLLING_INTERVAL_SECS", "1");

/// A run of the sweep as the database recorded it, including runs that found nothing.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
struct Run {
    tick: i64,
    started: f64,
    /// Seconds since 1970, as `started`.
    finished: f64,
    found: i64,
}

/// Records every sweep that ends from now on.
async fn note_runs(pool: &PgPool) {
    for statement in [
        "CREATE TABLE runs (tick BIGINT, started DOUBLE PRECISION, finished DOUBLE PRECISION, found BIGINT)",
        "CREATE FUNCTION note_run() RETURNS TRIGGER LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO runs
             VALUES (NEW.tick, EXTRACT(EPOCH FROM NEW.started_at), EXTRACT(EPOCH FROM clock_timestamp()),
                     NEW.total_readings);
             RETURN NEW;
         END
         $$",
        "CREATE TRIGGER note_run AFTER UPDATE ON batches FOR EACH ROW
         WHEN (NEW.kind = 'sweep' AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
         EXECUTE FUNCTION note_run()",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
}

async fn runs(pool: &PgPool) -> Vec<Run> {
    sqlx::query_as("SELECT tick, started, finished, found FROM runs ORDER BY started, finished")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// One run for each tick at most, and none before the last one ended.
fn in_a_row(runs: &[Run]) {
    for pair in runs.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert!(before.tick < after.tick, "{before:?} {after:?}");
        // Both by the database's clock, the end a moment after its commit was prepared.
        assert!(
            before.finished <= after.started + 0.05,
            "{before:?} {after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_stragglers_and_nothing_else() {
    let grid = Grid::start_with(&[EACH_SECOND, ("TOKENIZATION_AUTO_MINT_PERCENTAGE", "50")]).await;
    note_runs(&grid.pool).await;
    // In one transaction, so that no sweep sees a half-prepared state.
    let mut transaction = grid.pool.begin().await.unwrap();
    for (serial, bucket, delay, has_job) in [
        ("straggler", 49, "0", false),
        ("backing off", 0, "1 hour", false),
        ("not rolled out", 50, "0", false),
        ("looked after", 0, "0", true),
    ] {
        sqlx::query(
            "WITH meter AS (
                 INSERT INTO meters (serial, owner, wallet, interval_minutes, rollout_bucket)
                 VALUES ($1, 'prosumer', $2, 15, $3)
                 RETURNING id, wallet
             ), reading AS (
                 INSERT INTO readings (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt,
                                       next_attempt_at)
                 SELECT gen_random_uuid(), id, now() - INTERVAL '1 hour', now(), 1, 1000000000, wallet,
                        decode(md5($1), 'hex'), now() + $4::INTERVAL
                 FROM meter
                 RETURNING id
             )
             INSERT INTO apalis.jobs (id, job_type, job, run_at, idempotency_key)
             SELECT upper(left(md5($1), 26)), 'MintReading', convert_to('{\"reading_id\":\"' || id || '\"}', 'UTF8'),
                    now() + INTERVAL '1 hour', id::TEXT
             FROM reading
             WHERE $5",
        )
        .bind(serial)
        .bind(
            solana_sdk::signature::Signer::pubkey(&solana_sdk::signature::Keypair::new())
                .to_bytes()
                .to_vec(),
        )
        .bind(bucket)
        .bind(delay)
        .bind(has_job)
        .execute(&mut *transaction)
        .await
        .unwrap();
    }
    transaction.commit().await.unwrap();
    grid.until_count("finalized", 1).await;
    let swept: String = sqlx::query_scalar(
        "SELECT meters.serial FROM readings JOIN meters ON meters.id = readings.meter WHERE state = 'finalized'",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(swept, "straggler");
    let already = runs(&grid.pool).await.len();
    grid.until("two more sweeps found nothing", async || {
        let runs = runs(&grid.pool).await;
        runs.len() >= already + 2 && runs[already..].iter().all(|run| run.found == 0)
    })
    .await;
    assert_eq!(grid.count("pending").await, 3);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_that_found_nothing_are_shown_and_do_not_pile_up() {
    let grid = Grid::start_with(&[EACH_SECOND]).await;
    note_runs(&grid.pool).await;
    grid.until("five sweeps have run", async || {
        runs(&grid.pool).await.len() >= 5
    })
    .await;
    let kept = count(&grid.pool, "SELECT count(*) FROM batches").await;
    // The newest sweep that ended, and one that may be running now.
    assert!((1..=2).contains(&kept), "{kept}");
    let status = grid
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(status["last_sweep"]["found"], 0);
    assert_eq!(status["last_sweep"]["state"], "completed");
    assert!(status["last_sweep"]["at"].is_string());
    assert_eq!(status["recent_batch_stats"], Value::Array(Vec::new()));
    let announced =
        "SELECT (SELECT count(*) FROM outbox WHERE event_type = 'BatchMintingCompleted')
                     + (SELECT count(*) FROM events WHERE event_type = 'BatchMintingCompleted')";
    assert_eq!(count(&grid.pool, announced).await, 0);

    insert_backlog(&grid.pool, 3, 4).await;
    grid.until_count("finalized", 12).await;
    // A sweep may have begun between two meters.
    let found: i64 = sqlx::query_scalar("SELECT sum(total_readings)::BIGINT FROM batches")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(found, 12);
    assert!((1..=3).contains(&count(&grid.pool, announced).await));
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_three_processes_sweeps_follow_each_other_one_a_tick() {
    // A batch lingers for as long as a tick, so that sweeps with something to do are still running at the next.
    let grid = Grid::without_service(&[EACH_SECOND, ("MINT_LINGER_MS", "1000")]).await;
    let _servers = [
        grid.spawn(&[]).await,
        grid.spawn(&[]).await,
        grid.spawn(&[]).await,
    ];
    note_runs(&grid.pool).await;
    let first = eventually("the first sweep", async || {
        runs(&grid.pool).await.first().cloned()
    })
    .await;
    let mut inserted = 0;
    let busy = eventually("eight sweeps, four of them busy", async || {
        insert_backlog(&grid.pool, 1, 2).await;
        inserted += 2;
        let runs = runs(&grid.pool).await;
        let busy = runs.iter().filter(|run| run.found > 0).count();
        (runs.len() >= 8 && busy >= 4).then_some(runs)
    })
    .await;
    in_a_row(&busy);
    let last = busy.last().unwrap();
    let ticks = last.tick - first.tick + 1;
    assert!(busy.len() as i64 <= ticks, "no more runs than ticks");
    grid.until_count("finalized", inserted).await;
    in_a_row(&runs(&grid.pool).await);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_were_missed_are_not_made_up() {
    const PAUSE: Duration = Duration::from_secs(6);
    let grid = Grid::without_service(&[EACH_SECOND]).await;
    let server = grid.spawn(&[]).await;
    note_runs(&grid.pool).await;
    grid.until("sweeps run", async || runs(&grid.pool).await.len() >= 2)
        .await;
    server.signal(Signal::SIGSTOP);
    tokio::time::sleep(PAUSE).await;
    let before = runs(&grid.pool).await;
    let continued = count(
        &grid.pool,
        "SELECT EXTRACT(EPOCH FROM clock_timestamp())::BIGINT",
    )
    .await;
    server.signal(Signal::SIGCONT);
    let after = eventually("four sweeps after the pause", async || {
        let runs = runs(&grid.pool).await;
        (runs.len() >= before.len() + 4).then_some(runs)
    })
    .await;
    in_a_row(&after);
    // The tick that was awaited when the pause began may be late; after it only current ticks follow.
    let made_up = after[before.len()..]
        .iter()
        .filter(|run| run.tick < continued)
        .count();
    assert!(made_up <= 1, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_whose_process_is_killed_is_continued() {
    let grid = Grid::without_service(&[EACH_SECOND]).await;
    let mut first = grid
        .spawn(&[("FAILPOINTS", "queue.batch_claimed=1*off->return(kill)")])
        .await;
    insert_backlog(&grid.pool, 10, 20).await;
    assert!(!first.ended().await.success(), "it was killed");
    let _next = grid.spawn(&[]).await;
    grid.until_count("finalized", 200).await;
    let sums: (i64, i64, i64) = eventually("the sweeps are ended", async || {
        sqlx::query_as(
            "SELECT sum(total_readings)::BIGINT, sum(successful_mints)::BIGINT, sum(failed_mints)::BIGINT
             FROM batches
             HAVING bool_and(finished_at IS NOT NULL)",
        )
        .fetch_optional(&grid.pool)
        .await
        .unwrap()
    })
    .await;
    assert_eq!(sums, (200, 200, 0), "each reading is counted once");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_backlog_goes_through_the_minter_in_bounded_steps() {
    const READINGS: i64 = 6_000;
    /// BLOCKCHAIN_MAX_BATCH_SIZE × BLOCKCHAIN_CONCURRENT_BATCHES.
    const IN_MINTER_MAX: i64 = 50 * 5;
    let grid = Grid::without_service(&[
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        EACH_SECOND,
        ("MINT_LINGER_MS", "5"),
    ])
    .await;
    let server = grid.spawn(&[]).await;
    insert_backlog(&grid.pool, 100, READINGS as usize / 100).await;
    assert_eq!(grid.count("pending").await, READINGS);
    sqlx::query("UPDATE settings SET auto_mint_enabled = TRUE")
        .execute(&grid.pool)
        .await
        .unwrap();
    let claimed = "SELECT count(*)
                   FROM batch_readings AS item
                   JOIN readings AS reading ON reading.id = item.reading
                   WHERE item.ordinal IS NULL AND reading.state = 'pending'";
    let mut most = 0;
    eventually("all are swept", async || {
        most = most.max(count(&grid.pool, claimed).await);
        (grid.count("pending").await == 0).then_some(())
    })
    .await;
    assert!((1..=IN_MINTER_MAX).contains(&most), "{most} at once");
    grid.until_count("finalized", READINGS).await;
    let admin = Api::new(&server.api_url, "an admin", Role::Admin);
    let batches = eventually("its batch is ended", async || {
        let batches = admin.get("/api/admin/tokenization/batches").await.ok();
        let ended = batches["batches"].as_array().unwrap().iter();
        ended
            .clone()
            .all(|batch| batch["state"] == "completed")
            .then_some(batches)
    })
    .await;
    let batches = batches["batches"].as_array().unwrap();
    let sum = |member: &str| -> i64 {
        batches
            .iter()
            .map(|batch| batch[member].as_i64().unwrap())
            .sum()
    };
    assert_eq!(sum("total_readings"), READINGS);
    assert_eq!(sum("successful_mints"), READINGS);
    assert_eq!(sum("failed_mints"), 0);
    // One batch by the change of the settings, or two: readings may have been claimed before the process learned of the change.
    assert!(batches.len() <= 2, "{batches:#?}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_circuit_breaker_is_open_a_sweep_claims_nothing_and_a_requested_one_is_not_lost()
{
    // The sweep that an admin requests is the only one.
    let no_ticks = ("TOKENIZATION_POLLING_INTERVAL_SECS", "86400");
    let proxy = ProxyProgram::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(
        &proxy.url,
        &[no_ticks, ("TOKENIZATION_AUTO_MINT_ENABLED", "false")],
    )
    .await;
    grid.serve().await;
    let (admin, meter) = (grid.admin(), grid.meter().await);
    meter.report_many("1", 3).await;
    grid.until("their jobs are done: they are held", async || {
        let done =
            "SELECT count(*) FROM apalis.jobs WHERE job_type = 'MintReading' AND status = 'Done'";
        count(&grid.pool, done).await == 3
    })
    .await;
    proxy.put_fault("*", "drop").await;
    until_open(&admin, "unreachable").await;

    let toggle = "/api/admin/tokenization/toggle-auto-mint";
    admin.post(toggle, &json!({"enabled": true})).await.ok();
    grid.until(
        "the requested sweep has waited and has another job",
        async || {
            let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'SweepUnminted'";
            count(&grid.pool, jobs).await > 1
        },
    )
    .await;
    let claimed = "SELECT count(*) FROM batch_readings";
    assert_eq!(count(&grid.pool, claimed).await, 0);

    proxy.forward_everything().await;
    grid.until_count("finalized", 3).await;
    let batch = eventually("its batch is ended", async || {
        let batches = admin.get("/api/admin/tokenization/batches").await.ok();
        let batch = batches["batches"][0].clone();
        (batch["state"] == "completed").then_some(batch)
    })
    .await;
    assert_eq!(batch["successful_mints"], 3, "{batch}");
    assert_eq!(batch["processed_readings"], 3, "{batch}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_batches_are_forgotten() {
    let grid = Grid::start_with(&[EACH_SECOND]).await;
    insert_backlog(&grid.pool, 1, 3).await;
    grid.until_count("finalized", 3).await;
    grid.until("its batch is ended", async || {
        count(
            &grid.pool,
            "SELECT count(*) FROM batches WHERE total_readings > 0 AND finished_at IS NOT NULL",
        )
        .await
            == 1
    })
    .await;
    sqlx::query(
        "UPDATE batches SET finished_at = now() - INTERVAL '29 days' WHERE total_readings > 0",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let ended = count(&grid.pool, "SELECT max(tick) FROM batches").await;
    grid.until("another two sweeps", async || {
        count(&grid.pool, "SELECT max(tick) FROM batches").await >= ended + 2
    })
    .await;
    let kept = "SELECT count(*) FROM batch_readings";
    assert_eq!(count(&grid.pool, kept).await, 3, "not yet");
    sqlx::query(
        "UPDATE batches SET finished_at = now() - INTERVAL '31 days' WHERE total_readings > 0",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    grid.until("it is forgotten", async || {
        let batches = "SELECT count(*) FROM batches WHERE total_readings > 0";
        count(&grid.pool, batches).await == 0 && count(&grid.pool, kept).await == 0
    })
    .await;
    grid.audit_holds().await;
}
