//! Any number of API processes and of workers share one database: each does its part, and any of them may be killed.

use std::time::{Duration, Instant};

use gridtokenx::chain::read_or_create_keypair;
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer};
use solana_sdk::transaction::Transaction;

use crate::support::chain_breaker::{chain_of, until_closed, until_open};
use crate::support::consensus::Consensus;
use crate::support::ledger::until_history_scanned;
use crate::support::metrics::value;
use crate::support::server::program;
use crate::support::world::world;
use crate::support::{Api, CallAction, Grid, Proxy, Server, eventually};

const API: (&str, &str) = ("GRIDTOKENX_ROLE", "api");
const WORKER: (&str, &str) = ("GRIDTOKENX_ROLE", "worker");

async fn status(server: &Server) -> Value {
    server
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok()
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
    assert_eq!(grid.count("pending").await, 5, "no process mints");

    let mut worker = grid.spawn(&[WORKER]).await;
    grid.until_count("finalized", 5).await;
    let status = api.until_workers_alive(1).await;
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

    // A worker serves no public API.
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
    let status = api.until_workers_alive(0).await;
    assert_eq!(status["processes"].as_array().unwrap().len(), 1, "{status}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_needs_no_key() {
    let grid = Grid::without_service(&[]).await;
    let worker = grid.spawn(&[WORKER]).await;
    let api = api_without_key(&grid).await;
    let its_directory = grid.data_dir.path().join("of the API");
    assert!(
        !its_directory.join("mint-authority.json").exists(),
        "no key was made"
    );
    api.user("prosumer").meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    // The resolver needs no key either: this process holds the lock once the worker has ended.
    drop(worker);
    grid.audit_holds().await;
}

const BALANCE: &str = "gridtokenx_fee_payer_balance_lamports";
const RUNWAY: &str = "gridtokenx_fee_payer_runway_seconds";

/// A fee payer with its own key file.
struct FeePayer {
    file: String,
    keypair: Keypair,
    rpc: RpcClient,
}

impl FeePayer {
    fn new(grid: &Grid, name: &str) -> FeePayer {
        let file = grid.data_dir.path().join(name);
        FeePayer {
            keypair: read_or_create_keypair(&file).unwrap(),
            file: file.to_str().unwrap().to_owned(),
            rpc: RpcClient::new_with_commitment(
                grid.rpc_url.clone(),
                Consensus::current().newest_commitment(),
            ),
        }
    }

    async fn worker(&self, grid: &Grid) -> Server {
        grid.spawn(&[WORKER, ("SOLANA_FEE_PAYER_PATH", &self.file)])
            .await
    }

    async fn balance(&self) -> u64 {
        let address = self.keypair.pubkey();
        self.rpc.get_balance(&address).await.unwrap()
    }

    /// Another holder of the key takes the whole balance.
    async fn lose_everything(&self) {
        const FEE: u64 = 5_000;
        let from = self.keypair.pubkey();
        let all = self.balance().await - FEE;
        let transfer =
            solana_system_interface::instruction::transfer(&from, &Pubkey::new_unique(), all);
        let blockhash = self.rpc.get_latest_blockhash().await.unwrap();
        let theft = Transaction::new_signed_with_payer(
            &[transfer],
            Some(&from),
            &[&self.keypair],
            blockhash,
        );
        self.rpc.send_and_confirm_transaction(&theft).await.unwrap();
        assert_eq!(self.balance().await, 0);
    }

    /// Waits until a process shows this fee payer's balance.
    async fn until_watched_by(&self, server: &Server) {
        eventually("its balance is shown", async || {
            let shown = status(server).await["runway"]["balance_lamports"].as_u64();
            (shown? == self.balance().await).then_some(())
        })
        .await;
        let shown = value(&server.admin(), BALANCE).await;
        assert_eq!(shown, self.balance().await as f64);
    }
}

/// An API process on a host that holds no key.
async fn api_without_key(grid: &Grid) -> Server {
    api_on(grid, &grid.rpc_url).await
}

/// The same with this endpoint.
async fn api_on(grid: &Grid, rpc_url: &str) -> Server {
    let mint: String = sqlx::query_scalar("SELECT mint_address FROM ledger")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let nowhere = grid.data_dir.path().join("of the API");
    grid.spawn(&[
        API,
        ("SOLANA_RPC_URL", rpc_url),
        ("SOLANA_MINT_ADDRESS", &mint),
        ("GRIDTOKENX_DATA_DIR", nowhere.to_str().unwrap()),
    ])
    .await
}

/// The estimated cost of minting the one reading.
async fn dry_run_fee(api: &Server) -> Value {
    let body = json!({ "dry_run": true });
    let path = "/api/admin/tokenization/trigger-batch";
    let answer = api.admin().post(path, &body).await.ok();
    assert_eq!(answer["transactions"], 1, "{answer}");
    answer["fee_lamports"].clone()
}

async fn breaker_notifications(grid: &Grid) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM events WHERE event_type = 'AdminNotification' AND body LIKE '%chain breaker%')
              + (SELECT count(*) FROM outbox WHERE event_type = 'AdminNotification' AND body LIKE '%chain breaker%')",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_without_a_key_watches_the_fee_payer_of_the_workers() {
    let grid = Grid::without_service(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let first = FeePayer::new(&grid, "first-fee-payer.json");
    let mut worker = first.worker(&grid).await;
    // The authority has no SOL: a process that mistook it for the fee payer would report an empty one.
    let authority = FeePayer::new(&grid, "mint-authority.json");
    assert_eq!(authority.balance().await, 0);

    let api = api_without_key(&grid).await;
    first.until_watched_by(&api).await;
    let ready = eventually("the API is well", async || {
        let ready = api.admin().get("/health/ready").await.body;
        (ready["status"] == "ok").then_some(ready)
    })
    .await;
    assert_eq!(ready["checks"]["chain"]["status"], "ok", "{ready}");
    let chain = chain_of(&api.admin()).await;
    assert_eq!(chain["state"], "closed", "{chain}");
    assert_eq!(
        value(&api.admin(), "gridtokenx_chain_breaker_open").await,
        0.0
    );
    api.user("prosumer").meter().await.report("1").await;
    assert_eq!(
        dry_run_fee(&api).await,
        10_000,
        "authority and fee payer sign"
    );
    assert_eq!(breaker_notifications(&grid).await, 0);

    // Another key at the next start of a worker, while the API runs on.
    assert!(worker.terminate().await.success());
    let second = FeePayer::new(&grid, "second-fee-payer.json");
    let _worker = second.worker(&grid).await;
    assert_ne!(first.balance().await, second.balance().await);
    second.until_watched_by(&api).await;
    assert_eq!(chain_of(&api.admin()).await["state"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fee_payer_is_checked_only_once_a_worker_has_stored_its_address() {
    let grid = Grid::without_service(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let payer = FeePayer::new(&grid, "fee-payer.json");
    let mut worker = payer.worker(&grid).await;
    until_history_scanned(&grid).await;
    assert!(worker.terminate().await.success());
    // The state that workers of an earlier version leave.
    sqlx::query("UPDATE ledger SET fee_payer = NULL")
        .execute(&grid.pool)
        .await
        .unwrap();

    let api = api_without_key(&grid).await;
    let admin = api.admin();
    api.user("prosumer").meter().await.report("1").await;
    assert_eq!(status(&api).await["runway"], Value::Null);
    assert!(value(&admin, BALANCE).await.is_nan());
    assert!(value(&admin, RUNWAY).await.is_nan());
    let ready = admin.get("/health/ready").await.body;
    for part in ["chain", "fee_payer"] {
        assert_eq!(ready["checks"][part]["status"], "ok", "{ready}");
    }
    assert_eq!(chain_of(&admin).await["state"], "closed");
    assert_eq!(dry_run_fee(&api).await, 10_000, "the more that it can be");

    let _worker = payer.worker(&grid).await;
    payer.until_watched_by(&api).await;
    payer.lose_everything().await;
    until_open(&admin, "fee_payer_empty").await;
    assert_eq!(status(&api).await["runway"]["hours"], 0.0);
    eventually("metrics show it", async || {
        let shown = [value(&admin, BALANCE).await, value(&admin, RUNWAY).await];
        (shown == [0.0, 0.0]).then_some(())
    })
    .await;
    let address = payer.keypair.pubkey();
    let amount = 1_000_000_000;
    payer.rpc.request_airdrop(&address, amount).await.unwrap();
    until_closed(&admin).await;
    payer.until_watched_by(&api).await;
    eventually("it lasts again", async || {
        (value(&admin, RUNWAY).await > 0.0).then_some(())
    })
    .await;
}

/// An endpoint that answers no call until it is switched on.
async fn silent_endpoint() -> Proxy {
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|_, _| CallAction::Drop);
    proxy
}

/// Whether some process holds the resolver's lock.
async fn resolver_lock_is_held(grid: &Grid) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT
             FROM pg_locks
             WHERE locktype = 'advisory'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND classid = 1735680885
               AND objid = 1
               AND granted
         )",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answering_endpoint_an_api_process_starts_and_checks_the_chain_later() {
    let grid = Grid::without_service(&[]).await;
    let mut worker = grid.spawn(&[WORKER]).await;
    let mut first = api_without_key(&grid).await;
    let known = first.user("prosumer").meter().await;
    assert!(first.terminate().await.success());
    assert!(worker.terminate().await.success());

    let proxy = silent_endpoint().await;
    let api = api_on(&grid, &proxy.url).await;
    let admin = api.admin();
    let ready = admin.get("/health/ready").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    assert_eq!(ready.body["status"], "degraded", "{ready:?}");
    assert_eq!(ready.body["checks"]["chain"]["status"], "degraded");
    let reading = known.next_submission("1");
    let user = api.user("prosumer");
    let answer = user.post("/api/meters/submit-reading", &reading).await;
    answer.ok();
    assert_eq!(grid.count("pending").await, 1);
    assert!(!resolver_lock_is_held(&grid).await);

    proxy.forward_everything();
    eventually("the chain is well", async || {
        let ready = admin.get("/health/ready").await.body;
        (ready["checks"]["chain"]["status"] == "ok").then_some(())
    })
    .await;
    grid.until("it offers to settle", async || {
        resolver_lock_is_held(&grid).await
    })
    .await;
    user.meter().await.report("1").await;
    let _worker = grid.spawn(&[WORKER]).await;
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_that_started_without_an_endpoint_ends_when_it_finds_another_chain() {
    let grid = Grid::without_service(&[]).await;
    assert!(grid.spawn(&[WORKER]).await.terminate().await.success());
    let proxy = silent_endpoint().await;
    let mut api = api_on(&grid, &proxy.url).await;
    proxy.on_call(|method, _| match method {
        "getGenesisHash" => CallAction::Answer(json!(Pubkey::new_from_array([7; 32]).to_string())),
        _ => CallAction::Forward,
    });
    assert!(!api.ended().await.success());
    let log = api.log();
    assert!(
        log.contains("this ledger belongs to the chain with genesis hash"),
        "{log}"
    );
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answering_endpoint_nothing_is_minted_and_no_new_ledger_is_bound() {
    let grid = Grid::without_service(&[]).await;
    let proxy = silent_endpoint().await;
    let mint = Pubkey::new_unique().to_string();
    let unbound = [
        API,
        ("SOLANA_RPC_URL", proxy.url.as_str()),
        ("SOLANA_MINT_ADDRESS", mint.as_str()),
    ];
    let ended = Server::run_to_its_end(grid.environment(), &unbound).await;
    assert!(!ended.success(), "its ledger is not bound");

    let mut worker = grid.spawn(&[WORKER]).await;
    assert!(worker.terminate().await.success());
    for role in ["worker", "all"] {
        let settings = [
            ("GRIDTOKENX_ROLE", role),
            ("SOLANA_RPC_URL", proxy.url.as_str()),
        ];
        let ended = Server::run_to_its_end(grid.environment(), &settings).await;
        assert!(!ended.success(), "{role}");
    }
    let ended = Server::run_to_its_end(grid.environment(), &unbound).await;
    assert!(!ended.success(), "its ledger is another mint's");
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
    // It stalls, so it holds jobs when it is killed.
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
    api.until_workers_alive(3).await;
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
    api.until_workers_alive(2).await;

    clients.join_all().await;
    let all = (CLIENTS * READINGS_PER_CLIENT) as i64;
    assert!(before < all, "it was killed under load");
    grid.until_count("finalized", all).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "3600000000");
}
