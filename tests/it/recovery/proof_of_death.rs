//! Proofs that expired transactions did not land: what they cost, what interrupts them, and what cannot be proven.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use sqlx::PgPool;

use crate::support::proxy::drop_send;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

/// How often the block of each slot was answered.
type TimesRead = Arc<Mutex<HashMap<u64, u32>>>;

fn slot_of(parameters: &Value) -> u64 {
    parameters[0].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_block_is_read_twice_across_rate_limits_and_a_change_of_leader() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let mut first = grid.spawn(&[]).await;
    let meter = first.user("prosumer").meter().await;
    let times_read = TimesRead::default();
    let drops_sends = Arc::new(Mutex::new(true));
    {
        let (times_read, drops_sends) = (Arc::clone(&times_read), Arc::clone(&drops_sends));
        let calls = Mutex::new(0_u64);
        proxy.on_call(move |method, parameters| match method {
            "sendTransaction" if *drops_sends.lock().unwrap() => drop_send(parameters),
            "getBlock" => {
                let mut calls = calls.lock().unwrap();
                *calls += 1;
                if (*calls).is_multiple_of(25) {
                    return CallAction::RetryAfter {
                        status: 429,
                        secs: 0,
                    };
                }
                let mut times_read = times_read.lock().unwrap();
                *times_read.entry(slot_of(parameters)).or_default() += 1;
                // Slow enough that the first process is killed in the middle of it.
                CallAction::Delay(Duration::from_millis(30))
            }
            _ => CallAction::Forward,
        });
    }
    for _ in 0..3 {
        meter.report("1").await;
    }
    eventually("blocks are read for the proofs", async || {
        (times_read.lock().unwrap().len() >= 40).then_some(())
    })
    .await;
    first.kill9().await;
    let read_by_the_first = times_read.lock().unwrap().len();
    *drops_sends.lock().unwrap() = false;
    let _next = grid.spawn(&[]).await;
    grid.until_count("finalized", 3).await;
    {
        let times_read = times_read.lock().unwrap();
        assert!(
            times_read.len() > read_by_the_first,
            "the second process read on"
        );
        let twice: Vec<_> = times_read.iter().filter(|(_, times)| **times > 1).collect();
        // The one block that was under way when the process was killed.
        assert!(twice.len() <= 1, "{twice:?}");
    }
    let dead: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mint_transactions WHERE state = 'dead'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert!(dead >= 1);
    eventually("what is no longer needed is deleted", async || {
        let kept: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM scanned_runs) + (SELECT count(*) FROM scanned_signatures)
                  + (SELECT count(*) FROM late_transactions)",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (kept == 0).then_some(())
    })
    .await;
    grid.audit_holds().await;
}

/// The most memory that the process had, in KiB.
fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Adds as many signatures as a full block of the main network holds.
fn fill_block(mut block: Value) -> Value {
    static STRANGERS: OnceLock<Vec<Value>> = OnceLock::new();
    let strangers = STRANGERS.get_or_init(|| {
        let signature = |number: u64| {
            let mut bytes = [0; 64];
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
            }
            json!(solana_sdk::signature::Signature::from(bytes).to_string())
        };
        (1..=3_000).map(signature).collect()
    });
    if let Some(signatures) = block["signatures"].as_array_mut() {
        signatures.extend_from_slice(strangers);
    }
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_blocks_that_are_read() {
    const GROWTH_MAX_KIB: u64 = 20 * 1024;
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let server = grid.spawn(&[]).await;
    let meter = server.user("prosumer").meter().await;
    for _ in 0..20 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 20).await;
    let filled = Arc::new(Mutex::new(0_u32));
    let before = {
        let filled = Arc::clone(&filled);
        proxy.on_call(move |method, parameters| match method {
            "sendTransaction" if *filled.lock().unwrap() < 140 => drop_send(parameters),
            "getBlock" => {
                *filled.lock().unwrap() += 1;
                CallAction::Edit(fill_block)
            }
            _ => CallAction::Forward,
        });
        peak_memory_kib(server.pid())
    };
    meter.report("1").await;
    grid.until_count("finalized", 21).await;
    assert!(*filled.lock().unwrap() >= 150, "a proof reads 152 blocks");
    let grown = peak_memory_kib(server.pid()).saturating_sub(before);
    println!(
        "peak memory grew by {grown} KiB over {} blocks",
        filled.lock().unwrap()
    );
    assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_is_no_longer_sent_and_says_what_happens_next() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("LEDGER_QUARANTINE_AFTER_SECS", "5")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let sends = Arc::new(Mutex::new(0_u64));
    {
        let sends = Arc::clone(&sends);
        proxy.on_call(move |method, parameters| match method {
            "sendTransaction" => {
                *sends.lock().unwrap() += 1;
                drop_send(parameters)
            }
            // It lists its blocks and shows none of them.
            "getBlock" => CallAction::Answer(Value::Null),
            _ => CallAction::Forward,
        });
    }
    let id = meter.report("1").await;
    grid.until_count("quarantined", 1).await;
    let reading = grid.admin().get(&format!("/api/readings/{id}")).await.ok();
    let last_error = reading["last_error"].as_str().expect("it says why");
    for part in ["null", "rpc-1", "an admin resolves"] {
        assert!(last_error.contains(part), "{last_error}");
    }
    let status = grid
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(status["proofs"]["unproven_transactions"], 1, "{status}");
    assert!(
        status["proofs"]["oldest_expired_at"].is_string(),
        "{status}"
    );
    assert!(
        status["proofs"]["no_proof"]
            .as_str()
            .unwrap()
            .contains("rpc-1"),
        "{status}"
    );
    eventually("it is no longer sent", async || {
        let before = *sends.lock().unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        (*sends.lock().unwrap() == before).then_some(())
    })
    .await;
    let (look_ups, proofs_failed): (i32, i32) =
        sqlx::query_as("SELECT look_ups, proofs_failed FROM late_transactions")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert!(look_ups >= 1 && proofs_failed >= 1);
    // The endpoint shows its blocks again: it ends by itself, and the sentence is gone.
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    let reading = grid.admin().get(&format!("/api/readings/{id}")).await.ok();
    assert_eq!(reading["last_error"], Value::Null);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_previous_version_quarantined_is_looked_up_again_after_a_restart() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("LEDGER_QUARANTINE_AFTER_SECS", "1")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.on_call(|method, parameters| match method {
        "sendTransaction" => drop_send(parameters),
        "getBlock" => CallAction::Answer(Value::Null),
        _ => CallAction::Forward,
    });
    meter.report("1").await;
    grid.until_count("quarantined", 1).await;
    assert!(grid.stop().await);
    // The previous version knows neither the mark nor the schedule.
    grid.execute(
        "UPDATE mint_transactions SET late = FALSE;
         DELETE FROM late_transactions",
    )
    .await;
    proxy.forward_everything();
    grid.serve().await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_stored_blocks_nothing_is_dead() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.on_call(|method, parameters| match method {
        "sendTransaction" => drop_send(parameters),
        _ => CallAction::Forward,
    });
    // Another process drops a run as soon as it is long enough for a proof.
    grid.execute(
        "CREATE TABLE dropped_runs (last_slot BIGINT);
         CREATE FUNCTION drop_run() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             DELETE FROM scanned_runs WHERE endpoint = NEW.endpoint AND first_slot = NEW.first_slot;
             INSERT INTO dropped_runs VALUES (NEW.last_slot);
             RETURN NULL;
         END $$;
         CREATE TRIGGER drop_run AFTER INSERT ON scanned_runs FOR EACH ROW
             WHEN (NEW.last_height - NEW.first_height >= 151) EXECUTE FUNCTION drop_run();",
    )
    .await;
    meter.report("1").await;
    // The second search begins after the first has decided.
    eventually("all its blocks were read twice", async || {
        let dropped: i64 = sqlx::query_scalar("SELECT count(*) FROM dropped_runs")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (dropped >= 2).then_some(())
    })
    .await;
    let states: Vec<String> = sqlx::query_scalar("SELECT state FROM mint_transactions")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    assert_eq!(states, ["recorded"]);
    proxy.forward_everything();
    grid.execute("DROP TRIGGER drop_run ON scanned_runs").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

const UNPROVEN: i64 = 10_000;
/// Far above those that the service gives in this test.
const FIRST_NUMBER: i64 = 1_000_000;

/// Transactions that expired long ago and that no endpoint can prove, all due at once.
async fn insert_unproven(pool: &PgPool) {
    let statement = format!(
        "INSERT INTO mint_transactions (number, signature, wire, merkle_root, base_units, blockhash, blockhash_slot,
                                        last_valid_block_height, endpoint, state, fee_lamports, sent_at, recorded_at, late)
         SELECT {FIRST_NUMBER} + number, decode(repeat(md5(number::TEXT), 4), 'hex'), decode(repeat('00', 1100), 'hex'),
                decode(repeat('00', 32), 'hex'), 1, 'none', 1, 1, 'rpc-1',
                CASE WHEN number % 2 = 0 THEN 'quarantined' ELSE 'recorded' END, 5000,
                now() - INTERVAL '1 day', now() - INTERVAL '1 day', TRUE
         FROM generate_series(1, {UNPROVEN}) AS number;
         INSERT INTO late_transactions (number)
         SELECT {FIRST_NUMBER} + number FROM generate_series(1, {UNPROVEN}) AS number;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .unwrap();
}

async fn delete_unproven(pool: &PgPool) {
    let statement = format!(
        "DELETE FROM late_transactions WHERE number > {FIRST_NUMBER};
         DELETE FROM mint_transactions WHERE number > {FIRST_NUMBER};"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_unproven_transactions_and_failing_histories_delay_no_confirmation() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    insert_unproven(&grid.pool).await;
    let newest_slot = RpcClient::new(world().rpc_url().to_owned())
        .get_slot()
        .await
        .unwrap();
    let recent_requested = Arc::new(Mutex::new(0_usize));
    let sends = Arc::new(Mutex::new(0_u64));
    let histories_fail = Arc::new(AtomicBool::new(false));
    {
        let (recent_requested, sends) = (Arc::clone(&recent_requested), Arc::clone(&sends));
        let histories_fail = Arc::clone(&histories_fail);
        proxy.on_call(move |method, parameters| match method {
            "getSignatureStatuses"
                if parameters[1]["searchTransactionHistory"] == true
                    && histories_fail.load(Ordering::Relaxed) =>
            {
                CallAction::Error(
                    -32_011,
                    "Transaction history is not available from this node",
                )
            }
            "getSignatureStatuses" if parameters[1]["searchTransactionHistory"] != true => {
                let requested = parameters[0].as_array().unwrap().len();
                let mut recent_requested = recent_requested.lock().unwrap();
                *recent_requested = (*recent_requested).max(requested);
                CallAction::Forward
            }
            "sendTransaction" => {
                *sends.lock().unwrap() += 1;
                CallAction::Forward
            }
            "getBlock" if slot_of(parameters) <= newest_slot => CallAction::Answer(Value::Null),
            _ => CallAction::Forward,
        });
    }
    grid.serve().await;
    let meter = grid.meter().await;
    // Nothing is signed before the first scan of the history.
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    histories_fail.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 6).await;
    let requested = *recent_requested.lock().unwrap();
    assert!(
        requested <= 5,
        "{requested} recent statuses were looked up in one call"
    );
    let sent = *sends.lock().unwrap();
    assert!(sent < 100, "expired transactions were sent: {sent}");
    let unresolved: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM mint_transactions WHERE number > $1 AND state IN ('recorded', 'quarantined')",
    )
    .bind(FIRST_NUMBER)
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(unresolved, UNPROVEN, "nothing was proven");
    // Each is queried ever more rarely: after a few rounds none is due.
    eventually("all of them wait for their next look-up", async || {
        let due: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM late_transactions WHERE look_ups = 0 OR look_up_at <= now()",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        (due < UNPROVEN / 2).then_some(())
    })
    .await;
    proxy.forward_everything();
    meter.report("1").await;
    grid.until_count("finalized", 7).await;
    grid.stop().await;
    delete_unproven(&grid.pool).await;
    grid.audit_holds().await;
}

/// Whether the service makes this call out of its background budget.
fn is_background(method: &str, parameters: &Value) -> bool {
    match method {
        "getBlock" | "getBlocks" | "getSignaturesForAddress" | "getTransaction" => true,
        "getSignatureStatuses" => parameters[1]["searchTransactionHistory"] == true,
        _ => false,
    }
}

/// A provider that answers so many background calls in each window of time, and refuses the others without a word on when to
/// come back.
struct Provider {
    calls_max: u32,
    window: Duration,
    began: Instant,
    calls: u32,
    /// By method.
    answered: HashMap<String, u32>,
}

impl Provider {
    fn allows(&mut self, method: &str) -> bool {
        if self.began.elapsed() >= self.window {
            (self.began, self.calls) = (Instant::now(), 0);
        }
        if self.calls == self.calls_max {
            return false;
        }
        self.calls += 1;
        *self.answered.entry(method.to_owned()).or_default() += 1;
        true
    }
}

/// Lets one transaction expire unsent, and waits until it is proven dead.
async fn prove_one_death(calls_max: u32, window: Duration, rate: &'static str) {
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [("RPC_BACKGROUND_CALLS_PER_SECOND", rate)];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let provider = Arc::new(Mutex::new(Provider {
        calls_max,
        window,
        began: Instant::now(),
        calls: 0,
        answered: HashMap::new(),
    }));
    let times_read = TimesRead::default();
    {
        let (provider, times_read) = (Arc::clone(&provider), Arc::clone(&times_read));
        proxy.on_call(move |method, parameters| {
            if method == "sendTransaction" {
                return drop_send(parameters);
            }
            if !is_background(method, parameters) {
                return CallAction::Forward;
            }
            if !provider.lock().unwrap().allows(method) {
                return CallAction::Status(429);
            }
            if method == "getBlock" {
                let mut times_read = times_read.lock().unwrap();
                *times_read.entry(slot_of(parameters)).or_default() += 1;
            }
            CallAction::Forward
        });
    }
    meter.report("1").await;
    let last_height: i64 = eventually("its transaction is recorded", async || {
        sqlx::query_scalar("SELECT last_valid_block_height FROM mint_transactions")
            .fetch_optional(&grid.pool)
            .await
            .unwrap()
    })
    .await;
    let rpc = RpcClient::new(world().rpc_url().to_owned());
    eventually("its blockhash has expired", async || {
        (rpc.get_block_height().await.ok()? > last_height as u64).then_some(())
    })
    .await;
    let expired = Instant::now();
    provider.lock().unwrap().answered.clear();
    eventually("it is proven dead", async || {
        let dead: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM mint_transactions WHERE state = 'dead' AND last_valid_block_height = $1)",
        )
        .bind(last_height)
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        dead.then_some(())
    })
    .await;
    let answered = provider.lock().unwrap().answered.clone();
    println!(
        "{calls_max} calls in {window:?}: proven dead {:?} after its expiry, with {answered:?}",
        expired.elapsed()
    );
    let twice = times_read
        .lock()
        .unwrap()
        .values()
        .filter(|times| **times > 1)
        .count();
    assert_eq!(twice, 0, "blocks that were read twice");
    assert!(answered["getBlocks"] <= 10, "{answered:?}");
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_background_calls_a_second_are_enough_for_a_proof() {
    prove_one_death(u32::MAX, Duration::from_secs(1), "10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_ends_however_few_calls_the_provider_answers() {
    prove_one_death(8, Duration::from_secs(1), "100").await;
}
