//! A service that is told to end finishes what it began, hands back the rest, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::world::world;
use crate::support::{Grid, Proxy, Server, Verdict};

/// Clients that submit until told to stop; gives the ids of the readings that were answered.
async fn submit_until(server: &Server, stop: Arc<AtomicBool>) -> tokio::task::JoinSet<Vec<String>> {
    const CLIENTS: usize = 6;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let meter = server.user("prosumer").meter().await;
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let mut answered = Vec::new();
            // A meter has as many quarters of an hour as the age limit allows.
            for _ in 0..600 {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let submission = meter.next_submission("0.01");
                match meter
                    .api
                    .try_post("/api/meters/submit-reading", &submission)
                    .await
                {
                    Ok(answer) if answer.status == 200 => {
                        answered.push(answer.body["reading_id"].as_str().unwrap().to_owned());
                    }
                    // The drain has begun.
                    Ok(_) | Err(_) => break,
                }
            }
            answered
        });
    }
    clients
}

async fn claimed_jobs(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status IN ('Queued', 'Running')")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

/// Every reading that was answered is stored; another process mints them all.
async fn nothing_is_lost(grid: &Grid, answered: &[String]) {
    let ids: Vec<uuid::Uuid> = answered.iter().map(|id| id.parse().unwrap()).collect();
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM readings WHERE id = ANY($1)")
        .bind(&ids)
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(stored, ids.len() as i64, "what was answered is stored");
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let _next = grid.spawn(&[]).await;
    grid.until_count("finalized", all).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_ends_in_order_and_loses_nothing() {
    let grid = Grid::without_service(&[]).await;
    let mut server = grid.spawn(&[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = submit_until(&server, Arc::clone(&stop)).await;
    grid.until("some readings are minted", async || {
        grid.count("minted").await + grid.count("finalized").await > 20
    })
    .await;

    let status = server.terminate().await;

    stop.store(true, Ordering::SeqCst);
    let answered = clients.join_all().await.concat();
    assert!(status.success(), "a drain ends with status 0, not {status}");
    assert_eq!(claimed_jobs(&grid).await, 0, "claimed jobs are handed back");
    nothing_is_lost(&grid, &answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_hangs_does_not_hold_up_the_end() {
    const LIMIT_SECS: u64 = 3;
    let proxy = Proxy::start(&world().rpc_url).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let limit = LIMIT_SECS.to_string();
    let mut server = grid
        .spawn(&[("SHUTDOWN_TIMEOUT_SECS", limit.as_str())])
        .await;
    let meter = server.user("prosumer").meter().await;
    proxy.obey(|method, _| match method {
        "simulateTransaction" | "sendTransaction" => Verdict::Hang,
        _ => Verdict::Forward,
    });
    let mut answered = Vec::new();
    for _ in 0..30 {
        answered.push(meter.report("0.01").await);
    }

    let began = Instant::now();
    let status = server.terminate().await;

    assert!(status.success(), "{status}");
    // The limit, and what is given to steps that are only stopped.
    assert!(
        began.elapsed() < Duration::from_secs(4 * LIMIT_SECS + 15),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(claimed_jobs(&grid).await, 0, "claimed jobs are handed back");
    proxy.forward_everything();
    nothing_is_lost(&grid, &answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let proxy = Proxy::start(&world().rpc_url).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let mut server = grid.spawn(&[]).await;
    let meter = server.user("prosumer").meter().await;
    proxy.obey(|method, _| match method {
        "simulateTransaction" => Verdict::Hang,
        _ => Verdict::Forward,
    });
    let submissions: Vec<_> = (0..20).map(|_| meter.next_submission("0.01")).collect();
    let answer = meter
        .api
        .post(
            "/api/meters/submit-readings",
            &json!({ "readings": submissions }),
        )
        .await
        .ok();
    let answered: Vec<String> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["reading_id"].as_str().unwrap().to_owned())
        .collect();

    grid.until("all jobs are claimed, and hang", async || {
        claimed_jobs(&grid).await == 20
    })
    .await;
    server.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal(Signal::SIGTERM);
    let status = server.ended().await;

    assert!(!status.success(), "cut short");
    proxy.forward_everything();
    nothing_is_lost(&grid, &answered).await;
}
