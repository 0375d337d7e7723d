//! Faults of the chain, and of the connection to it, that affect a mint transaction.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;

use crate::support::chain_breaker::chain_of;
use crate::support::consensus::{under_each_consensus, under_tower};
use crate::support::ledger::{until_past_expiry, until_signing_is_allowed};
use crate::support::localnet::{Localnet, State, TempDir};
use crate::support::proxy::{drop_send, never_lands};
use crate::support::server::program;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

/// Signatures of everything that was ever signed, in order.
async fn signatures(grid: &Grid) -> Vec<Vec<u8>> {
    sqlx::query_scalar("SELECT signature FROM mint_transactions ORDER BY number")
        .fetch_all(&grid.pool)
        .await
        .unwrap()
}

under_each_consensus!(
    a_transaction_that_never_lands_is_replaced_only_after_the_proof,
    a_transaction_that_lands_late_is_paid_by_the_same_bytes,
    a_send_that_was_taken_but_answered_with_a_time_out_is_not_signed_again,
    kill_before_a_proven_death_commits,
    kill_after_a_proven_death_committed,
);

under_tower!(an_endpoint_that_lags_makes_no_fork,);

async fn a_transaction_that_never_lands_is_replaced_only_after_the_proof() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = {
        let mut grid = Grid::on_chain(&proxy.url, &[]).await;
        grid.serve().await;
        grid
    };
    let meter = grid.meter().await;
    let scanned = Arc::new(AtomicBool::new(false));
    let dropped = Arc::new(Mutex::new(HashSet::<String>::new()));
    {
        let (scanned, dropped) = (Arc::clone(&scanned), Arc::clone(&dropped));
        proxy.on_call(move |method, parameters| match method {
            "sendTransaction" => {
                let signed_bytes = parameters[0].as_str().unwrap().to_owned();
                let mut dropped = dropped.lock().unwrap();
                // Only the first transaction is dropped, however often it is sent.
                if dropped.is_empty() || dropped.contains(&signed_bytes) {
                    dropped.insert(signed_bytes);
                    return drop_send(parameters);
                }
                assert!(
                    scanned.load(Ordering::SeqCst),
                    "signed anew without a scan of the blocks"
                );
                CallAction::Forward
            }
            "getBlock" => {
                scanned.store(true, Ordering::SeqCst);
                CallAction::Forward
            }
            // Until the first is signed.
            "getLatestBlockhash" if dropped.lock().unwrap().is_empty() => {
                never_lands(method, parameters)
            }
            _ => CallAction::Forward,
        });
    }
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let states: Vec<String> =
        sqlx::query_scalar("SELECT state FROM mint_transactions ORDER BY number")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert_eq!(states, ["dead", "finalized"]);
    let attempts: i32 = sqlx::query_scalar("SELECT attempts FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(attempts, 0, "proven expiry uses no attempt");
    grid.audit_holds().await;
}

async fn a_transaction_that_lands_late_is_paid_by_the_same_bytes() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let sends = Arc::new(Mutex::new(0_u32));
    {
        let sends = Arc::clone(&sends);
        proxy.on_call(move |method, parameters| {
            if method != "sendTransaction" {
                return CallAction::Forward;
            }
            let mut sends = sends.lock().unwrap();
            *sends += 1;
            if *sends <= 2 {
                drop_send(parameters)
            } else {
                CallAction::Forward
            }
        });
    }
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    assert_eq!(signatures(&grid).await.len(), 1, "signed once");
    grid.audit_holds().await;
}

async fn a_send_that_was_taken_but_answered_with_a_time_out_is_not_signed_again() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.on_call(|method, _| match method {
        "sendTransaction" => CallAction::ForwardThenTimeOut,
        _ => CallAction::Forward,
    });
    for _ in 0..5 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 5).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "5000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_a_nodes_history_proves_nothing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("LEDGER_QUARANTINE_AFTER_SECS", "5")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let holes_met = Arc::new(Mutex::new(0_u32));
    {
        let holes_met = Arc::clone(&holes_met);
        proxy.on_call(move |method, parameters| match method {
            // The node lacks every tenth block of its history.
            "getBlock" if parameters[0].as_u64().unwrap() % 10 == 0 => {
                *holes_met.lock().unwrap() += 1;
                CallAction::Error(-32007, "Slot was skipped, or missing in long-term storage")
            }
            "getBlocks" => CallAction::Edit(|slots| {
                let kept = slots.as_array().unwrap().iter();
                kept.filter(|slot| slot.as_u64().unwrap() % 10 != 0)
                    .cloned()
                    .collect()
            }),
            _ => never_lands(method, parameters),
        });
    }
    meter.report("1").await;
    // Unproven for longer than the limit: quarantined, and nothing new is signed.
    grid.until_count("quarantined", 1).await;
    assert_eq!(
        signatures(&grid).await.len(),
        1,
        "no proof, no new signature"
    );
    // The node's history is whole again: the proof is found, and quarantine ends by itself.
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    assert_eq!(signatures(&grid).await.len(), 2);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_healed_with_the_same_bytes() {
    let state = TempDir::new("fork");
    let slot_ms = ("LOCALNET_SLOT_MS", "100");
    let mut chain = Localnet::start_with(
        State::In(state.path().to_owned()),
        "127.0.0.1:0",
        &[slot_ms],
    )
    .await;
    let mut grid = Grid::on_chain(&chain.rpc_url.clone(), &[]).await;
    grid.serve().await;
    let meters = {
        let mut meters = Vec::new();
        for _ in 0..5 {
            meters.push(grid.meter().await);
        }
        meters
    };
    let mut reported = 0;
    for round in 0..4 {
        for meter in &meters {
            for _ in 0..6 {
                meter.report("0.5").await;
                reported += 1;
            }
        }
        // In the middle of the work: the newest block is lost with everything that was confirmed in it.
        eventually("something is minted", async || {
            (grid.landed().await > round * 30).then_some(())
        })
        .await;
        chain.kill9().await;
        chain.restart_with(&[slot_ms]).await;
    }
    grid.until_count("finalized", reported).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "60000000000");
    grid.stop().await;
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_chain_uses_no_attempt_and_minting_resumes() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.on_call(|_, _| CallAction::Status(503));
    for _ in 0..10 {
        meter.report("0.1").await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(grid.count("pending").await, 10);
    proxy.forward_everything();
    grid.until_count("finalized", 10).await;
    let attempts: i64 = sqlx::query_scalar("SELECT sum(attempts)::BIGINT FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(attempts, 0);
    grid.audit_holds().await;
}

/// The first transaction never lands; the process that proves it dead is killed at `point`, and its successor continues.
async fn survives_a_kill_while_marking_dead(point: &str) {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[]).await;
    let failpoints = format!("{point}=return(kill)");
    let mut server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let meter = server.user("prosumer").meter().await;
    proxy.on_call(never_lands);
    for _ in 0..3 {
        meter.report("1").await;
    }
    let status = server.ended().await;
    assert!(!status.success(), "it was killed at {point}");
    proxy.forward_everything();
    let _next = grid.spawn(&[]).await;
    grid.until_count("finalized", 3).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "3000000000");
}

async fn kill_before_a_proven_death_commits() {
    survives_a_kill_while_marking_dead("ledger.before_dead_commit").await;
}

async fn kill_after_a_proven_death_committed() {
    survives_a_kill_while_marking_dead("ledger.dead").await;
}

/// Sends are dropped and the node's history has holes, so that the transaction is quarantined; the process that does it
/// is killed at `point`.
async fn survives_a_kill_while_quarantining(point: &str) {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&proxy.url, &[("LEDGER_QUARANTINE_AFTER_SECS", "3")]).await;
    let failpoints = format!("{point}=return(kill)");
    let mut server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let meter = server.user("prosumer").meter().await;
    proxy.on_call(|method, parameters| match method {
        "getBlock" => {
            CallAction::Error(-32007, "Slot was skipped, or missing in long-term storage")
        }
        _ => never_lands(method, parameters),
    });
    for _ in 0..3 {
        meter.report("1").await;
    }
    let status = server.ended().await;
    assert!(!status.success(), "it was killed at {point}");
    let _next = grid.spawn(&[]).await;
    grid.until_count("quarantined", 3).await;
    proxy.forward_everything();
    grid.until_count("finalized", 3).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "3000000000");
}

/// An endpoint that refused a send has not decided the outcome of the transaction.
#[tokio::test(flavor = "multi_thread")]
async fn expired_bytes_that_are_sent_again_use_no_attempt() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    // Nothing lands, and nothing can be proven.
    proxy.on_call(|method, parameters| match method {
        "getBlock" => {
            CallAction::Error(-32007, "Slot was skipped, or missing in long-term storage")
        }
        _ => never_lands(method, parameters),
    });
    meter.report("1").await;
    until_past_expiry(&grid, 10).await;
    // The service sends expired bytes no more; a node that held them back may. The chain has time to report its refusal as
    // finalized.
    let signed_bytes: Vec<u8> = sqlx::query_scalar("SELECT wire FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let parameters = json!([
        STANDARD.encode(signed_bytes),
        { "encoding": "base64", "skipPreflight": true }
    ]);
    let refused: Result<String, _> = RpcClient::new(world().rpc_url().to_owned())
        .send(RpcRequest::SendTransaction, parameters)
        .await;
    println!("the chain answered {refused:?}");
    until_past_expiry(&grid, 80).await;
    assert_eq!(grid.count("submitted").await, 1, "nothing is proven");
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    let attempts: i32 = sqlx::query_scalar("SELECT attempts FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(attempts, 0, "the reading was not refused");
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_before_a_quarantine_commits() {
    survives_a_kill_while_quarantining("ledger.before_quarantine_commit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_after_a_quarantine_committed() {
    survives_a_kill_while_quarantining("ledger.quarantined").await;
}

async fn an_endpoint_that_lags_makes_no_fork() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let urls = format!("{},{}", proxy.url, world().rpc_url());
    let mut grid = Grid::on_chain(&urls, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let reading = meter.report("1").await;
    grid.until("it is minted", async || grid.landed().await == 1)
        .await;
    // From now on the endpoint that is queried first does not show the transaction.
    proxy.on_call(|method, parameters| match method {
        "getSignatureStatuses" => {
            let requested = parameters[0].as_array().unwrap().len();
            CallAction::Answer(
                json!({ "context": { "slot": 1 }, "value": vec![Value::Null; requested] }),
            )
        }
        _ => CallAction::Forward,
    });
    grid.until_count("finalized", 1).await;
    let written: i64 = sqlx::query_scalar(
        "SELECT count(*)
         FROM (SELECT event_id, body FROM outbox WHERE event_type = 'TokensMinted'
               UNION
               SELECT event_id, body FROM events WHERE event_type = 'TokensMinted') AS written
         WHERE body LIKE '%' || $1 || '%'",
    )
    .bind(&reading)
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(written, 1, "notified once");
    proxy.forward_everything();
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_another_chain_proves_nothing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    // The probe of capabilities reads a block too.
    grid.until("the capabilities are probed", async || {
        chain_of(&grid.admin()).await["endpoints"][0]["capabilities"]["blocks"] == "yes"
    })
    .await;
    let meter = grid.meter().await;
    until_signing_is_allowed(&grid).await;
    let requested = Arc::new(Mutex::new(0_u32));
    let blocks_read = Arc::new(AtomicBool::new(false));
    {
        let (requested, blocks_read) = (Arc::clone(&requested), Arc::clone(&blocks_read));
        proxy.on_call(move |method, parameters| match method {
            // The endpoint now points at another cluster.
            "getGenesisHash" => {
                *requested.lock().unwrap() += 1;
                CallAction::Answer(json!("4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY"))
            }
            "getBlock" => {
                blocks_read.store(true, Ordering::SeqCst);
                CallAction::Forward
            }
            _ => never_lands(method, parameters),
        });
    }
    meter.report("1").await;
    grid.until_count("submitted", 1).await;
    until_past_expiry(&grid, 70).await;
    eventually("the chain is checked before its blocks", async || {
        assert!(!blocks_read.load(Ordering::SeqCst), "its blocks were read");
        (*requested.lock().unwrap() > 2).then_some(())
    })
    .await;
    assert_eq!(signatures(&grid).await.len(), 1, "nothing was proven");
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_two_chains_are_refused_at_the_start() {
    let other = Localnet::start(State::Ephemeral).await;
    let urls = format!("{},{}", world().rpc_url(), other.rpc_url);
    let grid = Grid::on_chain(&urls, &[]).await;
    let started = program()
        .arg("serve")
        .envs(grid.environment())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), started)
        .await
        .expect("it does not start")
        .unwrap();
    assert!(!output.status.success());
    let sentence = String::from_utf8_lossy(&output.stderr);
    assert!(sentence.contains(&other.genesis_hash), "{sentence}");
    assert!(sentence.contains("SOLANA_RPC_URL"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_hangs_delays_no_other() {
    const OTHERS: i64 = 5;
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let first = Arc::new(Mutex::new(None::<String>));
    {
        let first = Arc::clone(&first);
        proxy.on_call(move |method, parameters| {
            if method != "sendTransaction" {
                return CallAction::Forward;
            }
            let signed_bytes = parameters[0].as_str().unwrap();
            let mut first = first.lock().unwrap();
            match first.get_or_insert_with(|| signed_bytes.to_owned()) == signed_bytes {
                true => CallAction::Hang,
                false => CallAction::Forward,
            }
        });
    }
    meter.report("1").await;
    grid.until("the first one hangs when it is sent again", async || {
        let late: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM mint_transactions WHERE recorded_at < now() - INTERVAL '4 s')",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        late
    })
    .await;
    let began = std::time::Instant::now();
    for _ in 0..OTHERS {
        meter.report("1").await;
    }
    grid.until("the others are minted", async || {
        grid.landed().await >= OTHERS
    })
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "minted after {took:?}");
    grid.until_count("finalized", OTHERS + 1).await;
    grid.audit_holds().await;
}
