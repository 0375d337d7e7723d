//! On SIGTERM a service finishes the work that it has begun, hands back the rest, and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gridtokenx::meters::Role;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::database_proxy::DatabaseProxy;
use crate::support::world::world;
use crate::support::{CallAction, FeedClient, Grid, Proxy, Server, wait};

const SIMULATE: &str = "simulateTransaction";

/// Clients that submit until they are stopped; returns the ids of the readings that were answered.
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

/// Waits until so many jobs are claimed and more simulations than `before` hang. A claimed job alone may still wait for the first
/// scan of the history.
async fn until_jobs_hang(grid: &Grid, proxy: &Proxy, jobs: i64, before: u64) {
    grid.until("all jobs are claimed, and hang", async || {
        claimed_jobs(grid).await == jobs && proxy.received(SIMULATE) > before
    })
    .await;
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
        grid.landed().await > 20
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
async fn a_chain_that_hangs_does_not_delay_the_shutdown() {
    const LIMIT_SECS: u64 = 3;
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let limit = LIMIT_SECS.to_string();
    let mut server = grid
        .spawn(&[("SHUTDOWN_TIMEOUT_SECS", limit.as_str())])
        .await;
    let meter = server.user("prosumer").meter().await;
    proxy.on_call(|method, _| match method {
        SIMULATE | "sendTransaction" => CallAction::Hang,
        _ => CallAction::Forward,
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
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let mut server = grid.spawn(&[]).await;
    let meter = server.user("prosumer").meter().await;
    proxy.on_call(|method, _| match method {
        SIMULATE => CallAction::Hang,
        _ => CallAction::Forward,
    });
    let before = proxy.received(SIMULATE);
    let answered = meter.report_many("0.01", 20).await;

    until_jobs_hang(&grid, &proxy, 20, before).await;
    server.signal(Signal::SIGTERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal(Signal::SIGTERM);
    let status = server.ended().await;

    assert!(!status.success(), "cut short");
    proxy.forward_everything();
    nothing_is_lost(&grid, &answered).await;
}

/// The numbers of the one line at the end of a drain.
fn last_words(server: &Server) -> std::collections::HashMap<String, String> {
    let log = server.log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("drained"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    lines[0]
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_stuck_chain_open_streams_and_half_sent_requests_it_ends_in_time_and_reports_everything()
 {
    const LIMIT: Duration = Duration::from_secs(8);
    const READINGS: usize = 30;
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let limit = LIMIT.as_secs().to_string();
    let mut server = grid
        .spawn(&[("SHUTDOWN_TIMEOUT_SECS", &limit), ("LOG_LEVEL", "info")])
        .await;
    let api = server.user("prosumer");
    let meter = api.meter().await;
    proxy.on_call(|method, _| match method {
        SIMULATE | "sendTransaction" => CallAction::Hang,
        _ => CallAction::Forward,
    });
    let before = proxy.received(SIMULATE);
    let submissions: Vec<_> = (0..READINGS)
        .map(|_| meter.next_submission("0.01"))
        .collect();
    api.post(
        "/api/meters/submit-readings",
        &json!({ "readings": submissions }),
    )
    .await
    .ok();
    until_jobs_hang(&grid, &proxy, READINGS as i64, before).await;
    let (mut client, _) = FeedClient::open(&server.api_url, "prosumer", Role::User).await;
    let address = server.api_url.strip_prefix("http://").unwrap().to_owned();
    let mut events = send_text(
        &address,
        &format!(
            "GET /api/events/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            api.token
        ),
    )
    .await;
    until_heard(&mut events, "event: hello").await;
    let half_head = send_text(&address, "POST /api/meters/submit-read").await;
    let mut half_body = send_text(
        &address,
        &format!(
            "POST /api/meters/submit-reading HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n{{",
            api.token
        ),
    )
    .await;
    // Its handler waits for the rest.
    until_heard(&mut half_body, "100 Continue").await;

    let began = Instant::now();
    server.signal(Signal::SIGTERM);
    grid.until("readiness is 503 on new connections", async || {
        let ready = server.admin().get("/health/ready").await;
        ready.status == 503 && ready.body["checks"]["shutdown"]["status"] == "unavailable"
    })
    .await;
    assert_eq!(server.admin().get("/health/live").await.status, 200);
    let late = api
        .post("/api/meters/submit-reading", &meter.next_submission("0.01"))
        .await;
    assert_eq!(late.status, 503, "{late:?}");
    // Events of the readings may still be on their way.
    assert_eq!(client.eventually_closed().await.0, 1001, "going away");
    until_ended(events).await;
    let status = server.ended().await;
    let took = began.elapsed();

    assert!(status.success(), "{status}");
    assert!(took < LIMIT + Duration::from_secs(3), "{took:?}");
    assert_eq!(claimed_jobs(&grid).await, 0, "claimed jobs are handed back");
    drop((half_head, half_body));
    let logged = last_words(&server);
    for (name, expected) in [
        ("complete", "false"),
        ("jobs_finished", "0"),
        ("jobs_handed_back", "30"),
        ("transactions_left", "0"),
        // The connection whose request body never arrived.
        ("connections_cut", "1"),
    ] {
        assert_eq!(logged[name], expected, "{name} in {logged:?}");
    }
    let closed: usize = logged["connections_closed"].parse().unwrap();
    assert!(
        closed >= 3,
        "WebSocket, event stream, half a head: {logged:?}"
    );
    proxy.forward_everything();
    nothing_is_lost(&grid, &[]).await;
}

/// Opens a connection and sends this text.
async fn send_text(address: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn until_heard(stream: &mut TcpStream, wanted: &str) {
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains(wanted) {
        let read = tokio::time::timeout(wait::LIMIT, stream.read_buf(&mut received)).await;
        let read = read.expect("it is said in time").unwrap();
        assert!(
            read > 0,
            "ended after {:?}",
            String::from_utf8_lossy(&received)
        );
    }
}

async fn until_ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(wait::LIMIT, stream.read_to_end(&mut rest)).await;
    let _ = ended.expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_service_shuts_down_completely_and_reports_it() {
    let grid = Grid::without_service(&[]).await;
    let mut server = grid.spawn(&[("LOG_LEVEL", "info")]).await;
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    assert!(server.terminate().await.success());
    let logged = last_words(&server);
    for (name, expected) in [
        ("complete", "true"),
        ("jobs_handed_back", "0"),
        ("transactions_left", "0"),
        ("connections_cut", "0"),
    ] {
        assert_eq!(logged[name], expected, "{name} in {logged:?}");
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM processes")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(left, 0, "it has left the list of processes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_database_does_not_delay_the_shutdown() {
    const LIMIT: Duration = Duration::from_secs(3);
    const INSERTION: &str = "INSERT INTO readings";
    let grid = Grid::without_service(&[]).await;
    let database = DatabaseProxy::start(&grid.database_url).await;
    let limit = LIMIT.as_secs().to_string();
    let mut server = grid
        .spawn(&[
            ("DATABASE_URL", &database.url),
            ("SHUTDOWN_TIMEOUT_SECS", &limit),
            ("LOG_LEVEL", "info"),
        ])
        .await;
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;

    // One whose answer does not come.
    database.stall_at(INSERTION, 1);
    let submission = meter.next_submission("1");
    let waiting = tokio::spawn(async move {
        let path = "/api/meters/submit-reading";
        let _ = meter.api.try_post(path, &submission).await;
    });
    grid.until("the reading's session is silent", async || {
        database.stalled_at(INSERTION) == 1
    })
    .await;
    database.stall_all();
    let began = Instant::now();
    let status = server.terminate().await;

    assert!(status.success(), "{status}");
    // Below the limit that the documentation gives to orchestrators, with a reserve.
    let took = began.elapsed();
    assert!(took < LIMIT + Duration::from_secs(13), "{took:?}");
    waiting.abort();
    let logged = last_words(&server);
    for name in ["jobs_handed_back", "transactions_left"] {
        assert_eq!(logged.get(name), None, "{name} in {logged:?}");
    }
    nothing_is_lost(&grid, &[]).await;
}

/// Kills a process in the middle of its drain, under load.
async fn survives_a_kill_in_the_drain_at(point: &str) {
    let grid = Grid::without_service(&[]).await;
    let failpoints = format!("{point}=return(kill)");
    let mut server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = submit_until(&server, Arc::clone(&stop)).await;
    grid.until("some readings are minted", async || {
        grid.landed().await > 20
    })
    .await;

    let status = server.terminate().await;

    stop.store(true, Ordering::SeqCst);
    let answered = clients.join_all().await.concat();
    assert!(!status.success(), "it was killed at {point}");
    nothing_is_lost(&grid, &answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_drain_has_begun() {
    survives_a_kill_in_the_drain_at("drain.begun").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_work_has_ended() {
    survives_a_kill_in_the_drain_at("drain.work_ended").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_when_the_jobs_are_handed_back() {
    survives_a_kill_in_the_drain_at("drain.handed_back").await;
}
