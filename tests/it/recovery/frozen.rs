//! A process that is frozen for longer than others wait for it loses nothing, and does no harm when it resumes.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gridtokenx::meters::Role;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::proxy::drop_send;
use crate::support::world::world;
use crate::support::{Api, CallAction, FeedClient, Grid, Proxy, Server, eventually};

const API: (&str, &str) = ("GRIDTOKENX_ROLE", "api");
const WORKER: (&str, &str) = ("GRIDTOKENX_ROLE", "worker");

/// Resumes the process when it is dropped: after a failed test a stopped process would remain.
struct Frozen<'a>(&'a Server);

impl<'a> Frozen<'a> {
    fn new(server: &'a Server) -> Frozen<'a> {
        server.signal(Signal::SIGSTOP);
        Frozen(server)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGCONT);
    }
}

async fn submit(api: &Api, readings: usize) {
    api.meter().await.report_many("0.1", readings).await;
}

/// Every event has a number, and none is missing.
async fn the_feed_is_whole(grid: &Grid) {
    eventually("all events are numbered, without a gap", async || {
        let (waiting, counted, last): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM outbox),
                    (SELECT count(*) FROM events),
                    (SELECT last_seq FROM feed_head)",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (waiting == 0 && counted == last).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_loses_its_jobs_and_pays_nothing_twice_when_it_resumes() {
    const HELD: usize = 40;
    let grid = Grid::without_service(&[]).await;
    let release = grid.data_dir.path().join("go on");
    let api = grid.spawn(&[API]).await;
    // It is frozen while it holds jobs.
    let worker = grid
        .spawn(&[
            WORKER,
            ("FAILPOINTS", "queue.picked=40*return(stall)"),
            ("FAILPOINTS_RELEASE", release.to_str().unwrap()),
        ])
        .await;
    submit(&api.user("prosumer"), HELD).await;
    eventually("it holds all jobs", async || {
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM apalis.jobs
             WHERE job_type = 'MintReading' AND status = 'Running'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (held == HELD as i64).then_some(())
    })
    .await;
    let frozen = Frozen::new(&worker);
    // From here on only the freeze keeps its handlers from continuing.
    std::fs::write(&release, "").unwrap();
    let _other = grid.spawn(&[WORKER]).await;
    grid.until_count("finalized", HELD as i64).await;
    api.until_workers_alive(1).await;

    drop(frozen);
    api.until_workers_alive(2).await;
    submit(&api.user("prosumer"), 60).await;
    grid.until_count("finalized", HELD as i64 + 60).await;
    eventually("no job is left claimed", async || {
        let claimed: i64 = sqlx::query_scalar(
            "SELECT count(*)
             FROM apalis.jobs
             WHERE job_type = 'MintReading' AND status <> 'Done'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (claimed == 0).then_some(())
    })
    .await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "10000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_takes_over_from_a_frozen_leader_of_resolver_and_sequencer() {
    let grid = Grid::without_service(&[]).await;
    // The first one gets both locks.
    let first = grid.spawn(&[]).await;
    submit(&first.user("prosumer"), 20).await;
    grid.until_count("finalized", 20).await;
    let second = grid.spawn(&[]).await;
    let (mut client, seq) = FeedClient::open(&second.api_url, "prosumer", Role::User).await;
    client
        .send_json(json!({"type": "resume", "after": seq}))
        .await;

    // Under load: some of its transactions are sent and not yet confirmed.
    submit(&first.user("prosumer"), 100).await;
    let frozen = Frozen::new(&first);
    submit(&second.user("prosumer"), 100).await;
    grid.until_count("finalized", 220).await;
    the_feed_is_whole(&grid).await;

    drop(frozen);
    submit(&first.user("prosumer"), 50).await;
    submit(&second.user("prosumer"), 50).await;
    grid.until_count("finalized", 320).await;
    the_feed_is_whole(&grid).await;
    // Three for each reading after `seq`, in order; a fork would add one.
    let mut last = seq;
    for _ in 0..(300 * 3) {
        let next = client.seq().await;
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "32000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_api_process_delays_no_other() {
    let grid = Grid::without_service(&[]).await;
    // It holds resolver and sequencer, and has no worker.
    let leader = grid.spawn(&[API]).await;
    let _worker = grid.spawn(&[WORKER]).await;
    let other = grid.spawn(&[API]).await;
    submit(&leader.user("prosumer"), 30).await;
    let frozen = Frozen::new(&leader);
    submit(&other.user("prosumer"), 30).await;
    grid.until_count("finalized", 60).await;
    drop(frozen);
    submit(&leader.user("prosumer"), 30).await;
    grid.until_count("finalized", 90).await;
    the_feed_is_whole(&grid).await;
    grid.audit_holds().await;
}

/// What is sent through the proxy and fits does not arrive.
fn drop_sends(proxy: &Proxy, fits: impl Fn(&str) -> bool + Send + 'static) {
    proxy.on_call(move |method, parameters| match method {
        "sendTransaction" if fits(parameters[0].as_str().unwrap()) => drop_send(parameters),
        _ => CallAction::Forward,
    });
}

/// What is sent through the proxy from now on, and arrives.
fn note_sends(proxy: &Proxy) -> Arc<Mutex<Vec<String>>> {
    let sent = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&sent);
    proxy.on_call(move |method, parameters| {
        if method == "sendTransaction" {
            let signed_bytes = parameters[0].as_str().unwrap().to_owned();
            noted.lock().unwrap().push(signed_bytes);
        }
        CallAction::Forward
    });
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_before_its_first_send_pays_nothing_twice_with_its_old_bytes() {
    let others = Proxy::start(world().rpc_url()).await;
    let sleepers = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&others.url, &[]).await;
    let release = grid.data_dir.path().join("go on");
    let api = grid.spawn(&[API]).await;
    // The mint exists. The first transaction must not arrive, whichever process runs the resolver.
    drop_sends(&others, |_| true);
    drop_sends(&sleepers, |_| true);
    let sleeper = grid
        .spawn(&[
            WORKER,
            ("SOLANA_RPC_URL", &sleepers.url),
            ("FAILPOINTS", "mint.before_send=return(stall)"),
            ("FAILPOINTS_RELEASE", release.to_str().unwrap()),
        ])
        .await;
    let user = api.user("prosumer");
    let meter = user.meter().await;
    meter.report("2").await;
    grid.until_count("submitted", 1).await;
    let frozen = Frozen::new(&sleeper);
    // From here on only the freeze keeps it from sending.
    std::fs::write(&release, "").unwrap();
    let sent_by_sleeper = note_sends(&sleepers);
    let signed_bytes: Vec<u8> = sqlx::query_scalar("SELECT wire FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let old = STANDARD.encode(signed_bytes);
    let kept = old.clone();
    drop_sends(&others, move |signed_bytes| signed_bytes == kept);
    let _other = grid.spawn(&[WORKER]).await;
    grid.until_count("finalized", 1).await;
    let states: Vec<String> =
        sqlx::query_scalar("SELECT state FROM mint_transactions ORDER BY number")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert_eq!(
        states,
        ["dead", "finalized"],
        "proven dead, and signed anew"
    );
    assert_eq!(*sent_by_sleeper.lock().unwrap(), Vec::<String>::new());

    drop(frozen);
    eventually("it sends its old bytes", async || {
        sent_by_sleeper.lock().unwrap().contains(&old).then_some(())
    })
    .await;
    api.until_workers_alive(2).await;
    meter.report("3").await;
    grid.until_count("finalized", 2).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "5000000000");
    let signed: i64 = sqlx::query_scalar("SELECT count(*) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(signed, 3);
}
