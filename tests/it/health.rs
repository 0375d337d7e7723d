//! `GET /health/ready` names what is wrong, each part by a real fault; it is 503 only when no reading can be accepted.

use std::time::Duration;

use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::PgPool;

use crate::support::world::world;
use crate::support::{Api, Grid, eventually};

/// The two seconds that are promised, and what a busy machine adds; whatever hangs behind a probe hangs for longer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// A service that can accept nothing says so by then.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

const PARTS: [&str; 8] = [
    "breaker",
    "chain",
    "database",
    "disk",
    "listener",
    "migrations",
    "queue",
    "workers",
];

/// Waits until the part has the status, and gives it.
async fn until(api: &Api, part: &str, status: &str, http_status: u16) -> Value {
    eventually(&format!("{part} is {status}"), async || {
        let ready = api.get("/health/ready").await;
        let check = ready.body["checks"][part].clone();
        (check["status"] == status && ready.status == http_status).then_some(check)
    })
    .await
}

/// The same, as fast as is promised of what takes the service away. Gives the reason.
async fn until_unavailable(api: &Api, part: &str) -> String {
    let told = until(api, part, "unavailable", 503);
    let check = tokio::time::timeout(TOLD_WITHIN, told)
        .await
        .unwrap_or_else(|_| panic!("{part} was not unavailable within {TOLD_WITHIN:?}"));
    check["reason"].as_str().unwrap().to_owned()
}

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::query(statement).execute(pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_is_named_with_its_state_and_since_when() {
    let grid = Grid::start().await;
    let api = grid.admin();
    for part in PARTS {
        let check = until(&api, part, "ok", 200).await;
        let since = check["since"].as_str().unwrap();
        assert!(
            chrono::DateTime::parse_from_rfc3339(since).is_ok(),
            "{since}"
        );
        assert!(check.get("reason").is_none(), "{check}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_or_locked_is_503_and_recovers_by_itself() {
    let grid = Grid::start().await;
    let api = grid.admin();
    let meter = grid.meter().await;
    until(&api, "queue", "ok", 200).await;

    execute(&grid.pool, "ALTER TABLE apalis.jobs RENAME TO jobs_away").await;
    let reason = until_unavailable(&api, "queue").await;
    assert!(reason.contains("apalis.jobs is missing"), "{reason}");
    let refused = meter
        .api
        .post("/api/meters/submit-reading", &meter.next_submission("1"))
        .await;
    assert!(refused.status >= 500, "it told the truth: {refused:?}");
    execute(&grid.pool, "ALTER TABLE apalis.jobs_away RENAME TO jobs").await;
    until(&api, "queue", "ok", 200).await;

    let mut rival = grid.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE apalis.jobs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *rival)
        .await
        .unwrap();
    let reason = until_unavailable(&api, "queue").await;
    assert!(reason.contains("locked"), "{reason}");
    rival.rollback().await.unwrap();
    until(&api, "queue", "ok", 200).await;

    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_old_is_503() {
    let grid = Grid::start().await;
    let api = grid.admin();
    until(&api, "migrations", "ok", 200).await;
    execute(
        &grid.pool,
        "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 13",
    )
    .await;
    let reason = until_unavailable(&api, "migrations").await;
    assert!(reason.contains("the first is 13"), "{reason}");
    execute(
        &grid.pool,
        "UPDATE _sqlx_migrations SET success = TRUE WHERE version = 13",
    )
    .await;
    until(&api, "migrations", "ok", 200).await;
}

/// Each probe is answered, though nothing behind it is; the first ones still with what was found before.
async fn until_answered_with_503(api: &Api) -> Value {
    eventually("probes tell that the database hangs", async || {
        let answered = tokio::time::timeout(ANSWERED_WITHIN, api.get("/health/ready"));
        let ready = answered.await.expect("a probe is answered");
        (ready.status == 503).then_some(ready.body)
    })
    .await
}

/// Postmaster and backends, which are its children.
fn processes_of(cluster: &PostgresCluster) -> Vec<Pid> {
    let postmaster = cluster.pid();
    let children =
        std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let mut processes: Vec<Pid> = children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect();
    processes.insert(0, Pid::from_raw(i32::try_from(postmaster).unwrap()));
    processes
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // A backend may have ended meanwhile.
        let _ = kill(*process, signal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_or_dies_is_503_answered_in_time_and_recovers() {
    let mut cluster = PostgresCluster::start(PostgresOptions::ephemeral())
        .await
        .unwrap();
    let database_url = cluster.create_database("grid").await.unwrap();
    let mut grid = Grid::on(&database_url, &world().rpc_url, &[]).await;
    grid.serve().await;
    let api = grid.admin();
    until(&api, "database", "ok", 200).await;

    let processes = processes_of(&cluster);
    signal_all(&processes, Signal::SIGSTOP);
    let hanging = until_answered_with_503(&api).await;
    signal_all(&processes, Signal::SIGCONT);
    assert_eq!(hanging["checks"]["database"]["status"], "unavailable");
    until(&api, "database", "ok", 200).await;

    signal_all(&processes_of(&cluster)[..1], Signal::SIGKILL);
    cluster.exited().await;
    let reason = until_unavailable(&api, "database").await;
    assert!(
        !reason.contains("127.0.0.1"),
        "no address is shown: {reason}"
    );
    until(&api, "listener", "degraded", 503).await;
    cluster.ensure_alive().await.unwrap();
    for part in PARTS {
        until(&api, part, "ok", 200).await;
    }

    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
    assert!(grid.stop().await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_and_with_a_full_disk_readings_are_accepted_all_the_same() {
    let grid = Grid::without_service(&[]).await;
    let full = ("DISK_FREE_MIN_MB", "1000000000");
    let server = grid.spawn(&[("GRIDTOKENX_ROLE", "api"), full]).await;
    let api = server.admin();
    let workers = until(&api, "workers", "degraded", 200).await;
    assert!(
        workers["reason"]
            .as_str()
            .unwrap()
            .contains("--role worker")
    );
    let disk = until(&api, "disk", "degraded", 200).await;
    let reason = disk["reason"].as_str().unwrap();
    assert!(reason.contains("DISK_FREE_MIN_MB=1000000000"), "{reason}");
    server.user("prosumer").meter().await.report("1").await;

    let mut worker = grid.spawn(&[("GRIDTOKENX_ROLE", "worker")]).await;
    until(&api, "workers", "ok", 200).await;
    grid.until_count("finalized", 1).await;
    assert!(worker.terminate().await.success());
    until(&api, "workers", "degraded", 200).await;
    grid.audit_holds().await;
}
