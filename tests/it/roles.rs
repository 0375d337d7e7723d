//! Any number of API processes and of workers share one database: each does its part, and any of them may be killed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::server::program;
use crate::support::{Api, Grid, Server, eventually};

const API: (&str, &str) = ("GRIDTOKENX_ROLE", "api");
const WORKER: (&str, &str) = ("GRIDTOKENX_ROLE", "worker");

async fn status(server: &Server) -> Value {
    server
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok()
}

async fn until_workers_alive(server: &Server, wanted: usize) -> Value {
    eventually(&format!("{wanted} workers are alive"), async || {
        let status = status(server).await;
        (status["workers_alive"] == wanted).then_some(status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_takes_readings_and_a_worker_mints_them() {
    let grid = Grid::without_service(&[]).await;
    let api = grid.spawn(&[API]).await;
    assert_eq!(status(&api).await["workers_alive"], 0);
    let meter = api.user("prosumer").meter().await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    assert_eq!(grid.count("pending").await, 5, "nobody is there to mint");

    let mut worker = grid.spawn(&[WORKER]).await;
    grid.until_count("finalized", 5).await;
    let status = until_workers_alive(&api, 1).await;
    let roles: Vec<(&Value, &Value, &Value)> = status["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| (&process["role"], &process["pid"], &process["alive"]))
        .collect();
    assert_eq!(
        roles,
        [
            (&json!("api"), &json!(api.pid()), &json!(true)),
            (&json!("worker"), &json!(worker.pid()), &json!(true)),
        ]
    );

    // A worker of no public API.
    let stranger = worker.user("prosumer");
    let refused = stranger
        .post("/api/meters/submit-reading", &meter.next_submission("1"))
        .await;
    assert_eq!(refused.status, 404, "{refused:?}");
    let sentence = refused.body["error"].as_str().unwrap();
    assert!(sentence.contains("GRIDTOKENX_ROLE=worker"), "{sentence}");
    for path in [
        "/",
        "/docs",
        "/ws",
        "/api/events",
        "/api/admin/tokenization/status",
    ] {
        assert_eq!(stranger.get(path).await.status, 404, "{path}");
    }
    for server in [&api, &worker] {
        let health = server.admin().get("/health/ready").await;
        assert_eq!(health.status, 200, "{health:?}");
        assert_eq!(server.admin().get("/health/live").await.status, 200);
        let metrics = server.admin().get_text("/metrics").await;
        assert!(metrics.contains("gridtokenx_queue_jobs{"), "{metrics}");
    }

    assert!(worker.terminate().await.success());
    let status = until_workers_alive(&api, 0).await;
    assert_eq!(status["processes"].as_array().unwrap().len(), 1, "{status}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_needs_no_key() {
    let grid = Grid::without_service(&[]).await;
    let worker = grid.spawn(&[WORKER]).await;
    let mint: String = sqlx::query_scalar("SELECT mint_address FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let nowhere = grid.data_dir.path().join("of the API");
    let api = grid
        .spawn(&[
            API,
            ("SOLANA_MINT_ADDRESS", &mint),
            ("GRIDTOKENX_DATA_DIR", nowhere.to_str().unwrap()),
        ])
        .await;
    assert!(
        !nowhere.join("mint-authority.json").exists(),
        "no key was made"
    );
    api.user("prosumer").meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    // The Resolver needs none either: this process holds the lock once the worker is gone.
    drop(worker);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_serve_has_a_role() {
    let output = program()
        .args(["run", "--no-play", "--role", "api"])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert!(sentence.contains("GRIDTOKENX_ROLE=api"), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
}

const CLIENTS: usize = 6;
const READINGS_PER_CLIENT: usize = 60;

/// Readings one by one, from several clients; all are accepted.
async fn submit_all(api: &Api) -> tokio::task::JoinSet<()> {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let meter = api.meter().await;
        clients.spawn(async move {
            for _ in 0..READINGS_PER_CLIENT {
                meter.report("0.01").await;
            }
        });
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_workers_is_killed_under_load_and_its_jobs_run_elsewhere_within_seconds() {
    let grid = Grid::without_service(&[]).await;
    let api = grid.spawn(&[API]).await;
    // It certainly holds jobs when it dies.
    let mut doomed = grid
        .spawn(&[WORKER, ("FAILPOINTS", "queue.picked=return(stall)")])
        .await;
    let clients = submit_all(&api.user("prosumer")).await;
    let held = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*)
             FROM apalis.jobs AS job
             JOIN processes AS process ON starts_with(job.lock_by, process.worker_prefix)
             WHERE process.pid = $1 AND job.status IN ('Queued', 'Running')",
        )
        .bind(doomed.pid() as i32)
        .fetch_one(&grid.pool)
        .await
        .unwrap()
    };
    eventually("it holds jobs", async || (held().await > 20).then_some(())).await;
    let _others = [grid.spawn(&[WORKER]).await, grid.spawn(&[WORKER]).await];
    until_workers_alive(&api, 3).await;
    let before = grid.count("finalized").await;

    let prefix: String = sqlx::query_scalar("SELECT worker_prefix FROM processes WHERE pid = $1")
        .bind(doomed.pid() as i32)
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    doomed.kill9().await;
    let killed_at = Instant::now();
    eventually("its jobs are claimed by others", async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM apalis.jobs
             WHERE status IN ('Queued', 'Running') AND starts_with(lock_by, $1)",
        )
        .bind(&prefix)
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let took = killed_at.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    until_workers_alive(&api, 2).await;

    clients.join_all().await;
    let all = (CLIENTS * READINGS_PER_CLIENT) as i64;
    assert!(before < all, "it was killed under load");
    grid.until_count("finalized", all).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "3600000000");
}
