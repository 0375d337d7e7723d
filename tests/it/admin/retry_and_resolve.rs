//! Admins can retry readings and resolve mint transactions only where that is safe, and nothing is paid twice by it.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use gridtokenx::db::{LeaderLock, run_as_leader};
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signature, Signer};
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_token_interface::instruction::{burn, close_account};
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::support::admin_log::entries;
use crate::support::audit::difference;
use crate::support::authority::Authority;
use crate::support::client::Answer;
use crate::support::ledger::breaker;
use crate::support::proxy::{carried_transaction, drop_send, never_lands};
use crate::support::stored_events::notifications;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Meter, Proxy, eventually};

async fn retry(grid: &Grid, reading: &str, body: Value) -> Answer {
    let path = format!("/api/admin/tokenization/readings/{reading}/retry");
    grid.admin().post(&path, &body).await
}

async fn resolve(grid: &Grid, signature: &str, body: Value) -> Answer {
    let path = format!("/api/admin/tokenization/transactions/{signature}/resolve");
    grid.admin().post(&path, &body).await
}

async fn reading(grid: &Grid, id: &str) -> Value {
    let path = format!("/api/readings/{id}");
    grid.admin().get(&path).await.ok()
}

async fn actions(grid: &Grid) -> Vec<String> {
    let log = entries(&grid.admin()).await;
    log.iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .collect()
}

/// Base units in the wallet's token account; 0 without one.
async fn balance(grid: &Grid, mint: &Pubkey, wallet: &Pubkey) -> u64 {
    let account = get_associated_token_address(wallet, mint);
    let rpc = RpcClient::new(grid.rpc_url.clone());
    match rpc.get_token_account_balance(&account).await {
        Ok(balance) => balance.amount.parse().unwrap(),
        Err(_) => 0,
    }
}

/// The meter's token account, emptied and closed by its owner.
async fn close_token_account(authority: &Authority, meter: &Meter, base_units: u64) {
    let owner = meter.wallet.pubkey();
    let account = get_associated_token_address(&owner, &authority.mint);
    let token = spl_token_interface::ID;
    let burn = burn(&token, &account, &authority.mint, &owner, &[], base_units).unwrap();
    authority.send(burn, &[&meter.wallet]).await;
    let close = close_account(&token, &account, &owner, &owner, &[]).unwrap();
    authority.send(close, &[&meter.wallet]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_reading_is_paid_once_to_the_wallet_that_the_admin_names() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let paid = meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    close_token_account(&authority, &meter, 1_000_000_000).await;
    let failed = meter.report("2").await;
    grid.until_count("failed", 1).await;

    // The same wallet again: the account is still closed.
    let before = reading(&grid, &failed).await;
    let answer = retry(&grid, &failed, json!({})).await.ok();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["reading_id"], failed.as_str());
    assert_eq!(answer["state"], "pending");
    assert_eq!(answer["attempts"], 0);
    assert_eq!(answer["message"], "the reading is tried again now");
    eventually("it failed again", async || {
        let now = reading(&grid, &failed).await;
        (now["state"] == "failed" && now["attempts"] == 1).then_some(())
    })
    .await;
    assert_eq!(before["wallet_address"], answer["wallet_address"]);

    // An address that is not a wallet is refused, and nothing changes.
    let account = get_associated_token_address(&authority.payer(), &authority.mint);
    let token_account = {
        let other = grid.user("neighbour").meter().await;
        other.report("1").await;
        grid.until_count("finalized", 2).await;
        get_associated_token_address(&other.wallet.pubkey(), &authority.mint)
    };
    for wallet in [
        "no wallet",
        "",
        &authority.mint.to_string(),
        &account.to_string(),
        &token_account.to_string(),
        &spl_token_interface::ID.to_string(),
    ] {
        let answer = retry(&grid, &failed, json!({"wallet_address": wallet})).await;
        assert_eq!(answer.status, 400, "{wallet}: {answer:?}");
    }
    for reason in ["".to_owned(), " ".to_owned(), "x".repeat(501)] {
        let answer = retry(&grid, &failed, json!({"reason": reason})).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_eq!(reading(&grid, &failed).await["state"], "failed");

    let other = Keypair::new().pubkey();
    let body = json!({"wallet_address": other.to_string(), "reason": "the old one is closed"});
    let answer = retry(&grid, &failed, body.clone()).await.ok();
    assert_eq!(answer["wallet_address"], other.to_string());
    grid.until_count("finalized", 3).await;
    assert_eq!(balance(&grid, &authority.mint, &other).await, 2_000_000_000);
    let meters = grid.user("prosumer").get("/api/meters").await.ok();
    assert_eq!(
        meters["meters"][0]["wallet_address"],
        meter.wallet.pubkey().to_string(),
        "the meter keeps its wallet"
    );
    let audit = grid.audit_holds().await;
    assert_eq!(audit["outstanding"]["readings"], 0);

    // Only unpaid readings can be retried; the refusal names the reading's state.
    for finalized in [&failed, &paid] {
        let answer = retry(&grid, finalized, body.clone()).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_eq!(answer.body["state"], "finalized");
        let sentence = answer.body["detail"].as_str().unwrap();
        assert!(sentence.contains("is finalized"), "{sentence}");
    }
    let unknown = uuid::Uuid::now_v7().to_string();
    assert_eq!(retry(&grid, &unknown, json!({})).await.status, 404);
    assert_eq!(retry(&grid, "7", json!({})).await.status, 400);
    let log = entries(&grid.admin()).await;
    assert_eq!(log.len(), 2, "{log:?}");
    assert_eq!(
        log[1]["details"],
        json!({
            "reading_id": failed, "wallet_address": other.to_string(),
            "reason": "the old one is closed",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_in_its_backoff_is_tried_at_once() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(
        &proxy.url,
        &[("TOKENIZATION_INITIAL_RETRY_DELAY_SECS", "3000")],
    )
    .await;
    grid.serve().await;
    let meter = grid.meter().await;
    proxy.on_call(|method, parameters| {
        if method != "simulateTransaction" {
            return CallAction::Forward;
        }
        let message = carried_transaction(parameters).message;
        let keys = message.static_account_keys();
        let mut calls = message.instructions().iter();
        let payment = calls.position(|call| *call.program_id(keys) == spl_token_interface::ID);
        CallAction::Answer(json!({
            "context": { "slot": 1 },
            "value": {
                "err": { "InstructionError": [payment, { "Custom": 17 }] },
                "logs": [], "accounts": null, "unitsConsumed": 0, "returnData": null
            }
        }))
    });
    let refused = meter.report("1").await;
    eventually("an attempt is used", async || {
        let now = reading(&grid, &refused).await;
        (now["attempts"] == 1 && now["state"] == "pending").then_some(())
    })
    .await;
    proxy.forward_everything();
    // Two concurrent requests: one of them may arrive after the reading was submitted.
    let answers = join_all([
        retry(&grid, &refused, json!({})),
        retry(&grid, &refused, json!({})),
    ])
    .await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    grid.until_count("finalized", 1).await;
    assert_eq!(reading(&grid, &refused).await["attempts"], 0);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "1000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_that_race_with_the_sweep_and_the_jobs_pay_each_reading_once() {
    let grid = Arc::new(
        Grid::start_with(&[
            ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
            ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
            ("MINT_LINGER_MS", "5"),
        ])
        .await,
    );
    let meter = grid.meter().await;
    let mut readings = Vec::new();
    for _ in 0..30 {
        readings.push(meter.report("1").await);
    }
    let toggle = "/api/admin/tokenization/toggle-auto-mint";
    let admin = grid.admin();
    let on = json!({"enabled": true});
    let turned_on = admin.post(toggle, &on);
    let retries = readings.iter().enumerate().map(|(index, id)| {
        let grid = Arc::clone(&grid);
        async move {
            // Spread over the time in which the sweep takes them.
            tokio::time::sleep(std::time::Duration::from_millis(index as u64 * 7)).await;
            let wallet = Keypair::new().pubkey();
            let body = json!({"wallet_address": wallet.to_string()});
            (id.clone(), wallet, retry(&grid, id, body).await)
        }
    });
    let (turned_on, retried) = tokio::join!(turned_on, join_all(retries));
    turned_on.ok();
    grid.until_count("finalized", 30).await;
    let mint = Authority::of(&grid).await.mint;
    let mut unmoved = 0;
    for (id, wallet, answer) in retried {
        let shown = reading(&grid, &id).await;
        match answer.status {
            200 => {
                assert_eq!(shown["wallet_address"], wallet.to_string());
                assert_eq!(balance(&grid, &mint, &wallet).await, 1_000_000_000);
            }
            409 => {
                let state = answer.body["state"].as_str().unwrap();
                assert!(
                    ["submitted", "minted", "finalized"].contains(&state),
                    "{state}"
                );
                unmoved += 1;
                assert_eq!(balance(&grid, &mint, &wallet).await, 0);
            }
            _ => panic!("{answer:?}"),
        }
    }
    let old = balance(&grid, &mint, &meter.wallet.pubkey()).await;
    assert_eq!(old, unmoved * 1_000_000_000);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "30000000000");
}

/// An endpoint that accepts transactions, never shows their outcome, and has holes in its history.
fn blind(proxy: &Proxy, lands: bool) {
    let hidden = Mutex::new(HashSet::new());
    proxy.on_call(move |method, parameters| match method {
        "sendTransaction" => {
            let signature = carried_transaction(parameters).signatures[0].to_string();
            hidden.lock().unwrap().insert(signature);
            if lands {
                CallAction::Forward
            } else {
                drop_send(parameters)
            }
        }
        "getSignatureStatuses" => {
            let asked = parameters[0].as_array().unwrap();
            let hidden = hidden.lock().unwrap();
            if asked
                .iter()
                .any(|asked| hidden.contains(asked.as_str().unwrap()))
            {
                let value = vec![Value::Null; asked.len()];
                CallAction::Answer(json!({ "context": { "slot": 1 }, "value": value }))
            } else {
                CallAction::Forward
            }
        }
        "getBlock" => {
            CallAction::Error(-32007, "Slot was skipped, or missing in long-term storage")
        }
        // A transaction that lands needs a blockhash that is not about to expire.
        _ if lands => CallAction::Forward,
        _ => never_lands(method, parameters),
    });
}

/// An endpoint that shows no outcome and no block, and whose list of the authority's transactions is empty: a scan of the history
/// passes them unseen.
fn hide(proxy: &Proxy) {
    proxy.on_call(|method, parameters| match method {
        "getSignaturesForAddress" => CallAction::Answer(json!([])),
        "getSignatureStatuses" => {
            let asked = parameters[0].as_array().unwrap();
            let value = vec![Value::Null; asked.len()];
            CallAction::Answer(json!({ "context": { "slot": 1 }, "value": value }))
        }
        "getBlock" => {
            CallAction::Error(-32007, "Slot was skipped, or missing in long-term storage")
        }
        _ => CallAction::Forward,
    });
}

async fn until_scan_has_passed(grid: &Grid, slot: u64) {
    eventually("the history scan has passed the slot", async || {
        let watermark: i64 = sqlx::query_scalar("SELECT watermark_slot FROM ledger")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (watermark as u64 > slot).then_some(())
    })
    .await;
}

/// A reading whose transaction is quarantined on an endpoint that sees nothing.
async fn quarantined(lands: bool) -> (Grid, Proxy, String, String) {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("LEDGER_QUARANTINE_AFTER_SECS", "1")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    blind(&proxy, lands);
    let reading = meter.report("1").await;
    grid.until_count("quarantined", 1).await;
    let signature: Vec<u8> = sqlx::query_scalar("SELECT signature FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let signature = Signature::try_from(signature).unwrap().to_string();
    (grid, proxy, reading, signature)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_transaction_that_never_landed_is_called_dead_and_paid_by_another() {
    let (grid, proxy, id, signature) = quarantined(false).await;
    let answer = retry(&grid, &id, json!({})).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (409, &json!("quarantined"))
    );

    let dead = json!({"outcome": "dead", "reason": "no explorer knows it"});
    for (signature, body, status) in [
        ("no-signature", dead.clone(), 400),
        ("7", dead.clone(), 400),
        (&*Signature::from([7; 64]).to_string(), dead.clone(), 404),
        (&*signature, json!({"outcome": "dead"}), 400),
        (&*signature, json!({"reason": "because"}), 400),
        (&*signature, json!({"outcome": "dead", "reason": " "}), 400),
        (
            &*signature,
            json!({"outcome": "dead", "reason": "x".repeat(501)}),
            400,
        ),
        (&*signature, json!({"outcome": "lost", "reason": "x"}), 400),
        // No endpoint shows it.
        (
            &*signature,
            json!({"outcome": "landed", "reason": "I saw it"}),
            409,
        ),
    ] {
        let answer = resolve(&grid, signature, body.clone()).await;
        assert_eq!(answer.status, status, "{signature} {body}: {answer:?}");
    }

    // Not before it has expired.
    let expires = async |heights: i64| {
        sqlx::query(
            "UPDATE mint_transactions
             SET last_valid_block_height = last_valid_block_height + $1",
        )
        .bind(heights)
        .execute(&grid.pool)
        .await
        .unwrap();
    };
    expires(1_000_000_000).await;
    let answer = resolve(&grid, &signature, dead.clone()).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    let sentence = answer.body["detail"].as_str().unwrap();
    assert!(sentence.contains("has not expired"), "{sentence}");
    expires(-1_000_000_000).await;

    // Not without an endpoint that answers.
    proxy.on_call(|_, _| CallAction::Status(503));
    assert_eq!(resolve(&grid, &signature, dead.clone()).await.status, 503);
    // Nor by one that is on another chain since it was away, where it did not land either.
    proxy.on_call(|method, _| match method {
        "getGenesisHash" => CallAction::Answer(json!(Pubkey::from([7; 32]).to_string())),
        _ => CallAction::Forward,
    });
    let answer = resolve(&grid, &signature, dead.clone()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    blind(&proxy, false);
    assert!(actions(&grid).await.is_empty(), "nothing was done yet");

    let answer = resolve(&grid, &signature, dead.clone()).await.ok();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["state"], "dead");
    assert_eq!(answer["readings"], 1);
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    let again = resolve(&grid, &signature, dead).await;
    assert_eq!((again.status, &again.body["state"]), (409, &json!("dead")));
    let paid_by = reading(&grid, &id).await["transaction_signature"].clone();
    let paid_by = paid_by.as_str().unwrap();
    let finalized = json!({"outcome": "landed", "reason": "it is"});
    let answer = resolve(&grid, paid_by, finalized).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (409, &json!("finalized"))
    );
    assert_eq!(actions(&grid).await, ["resolve_transaction"]);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "1000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_finalized_block_holds_is_not_called_dead() {
    let (grid, proxy, _, signature) = quarantined(false).await;
    // As a block that was read for a proof shows it; the endpoint knows no status.
    grid.execute(
        "INSERT INTO scanned_signatures (signature, slot, endpoint)
         SELECT signature, 4711, 'rpc-2' FROM mint_transactions",
    )
    .await;
    let dead = json!({"outcome": "dead", "reason": "no explorer knows it"});
    let answer = resolve(&grid, &signature, dead.clone()).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    let sentence = answer.body["detail"].as_str().unwrap();
    assert!(sentence.contains("landed in slot 4711"), "{sentence}");
    assert_eq!(grid.count("quarantined").await, 1);
    assert!(actions(&grid).await.is_empty());
    // No block holds it in truth.
    grid.execute("DELETE FROM scanned_signatures").await;
    resolve(&grid, &signature, dead).await.ok();
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_dead_and_had_landed_opens_the_ledger_breaker() {
    let (mut grid, proxy, _, signature) = quarantined(true).await;
    hide(&proxy);
    // A history scan passes the transaction, so the watermark is above it afterwards.
    assert!(grid.stop().await);
    grid.serve().await;
    let landed_in = RpcClient::new(world().rpc_url().to_owned())
        .get_signature_statuses_with_history(&[Signature::from_str(&signature).unwrap()])
        .await
        .unwrap()
        .value[0]
        .as_ref()
        .expect("it has landed")
        .slot;
    until_scan_has_passed(&grid, landed_in).await;
    assert_eq!(breaker(&grid).await.0, "closed");

    let dead = json!({"outcome": "dead", "reason": "our node does not know it"});
    resolve(&grid, &signature, dead).await.ok();
    eventually("its reading is paid by another", async || {
        (grid.count("submitted").await == 1).then_some(())
    })
    .await;
    assert!(grid.stop().await);
    proxy.forward_everything();
    grid.serve().await;
    grid.until_count("finalized", 1).await;
    eventually("the breaker is open", async || {
        (breaker(&grid).await.0 == "mismatch").then_some(())
    })
    .await;
    let (_, reason) = breaker(&grid).await;
    assert!(reason.unwrap().contains(&signature));
    assert_eq!(notifications(&grid).await, 1, "notified once");
    let audit = grid.audit().await;
    let found = difference(&audit, "dead_but_landed");
    assert_eq!(found["signature"], signature);
    // A person resolves it: once booked as foreign, it no longer keeps the breaker open.
    sqlx::query("UPDATE foreign_mints SET booked_reason = 'called dead by mistake'")
        .execute(&grid.pool)
        .await
        .unwrap();
    eventually("the breaker is closed", async || {
        (breaker(&grid).await.0 == "closed").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_the_history_lists_is_not_called_dead() {
    let (mut grid, _proxy, _, signature) = quarantined(true).await;
    // The start requests a scan.
    assert!(grid.stop().await);
    grid.serve().await;
    eventually("a scan has listed it", async || {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM scanned_signatures")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (found == 1).then_some(())
    })
    .await;
    let dead = json!({"outcome": "dead", "reason": "our node does not know it"});
    let answer = resolve(&grid, &signature, dead).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(grid.count("quarantined").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_read_keeps_no_other_that_was_called_dead_from_being_found() {
    let (mut grid, proxy, _, unreadable) = quarantined(true).await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("quarantined", 2).await;
    hide(&proxy);
    // A history scan passes both.
    assert!(grid.stop().await);
    grid.serve().await;
    let signatures: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT signature FROM mint_transactions ORDER BY number")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    let readable = Signature::try_from(signatures[1].clone()).unwrap();
    let newest = RpcClient::new(world().rpc_url().to_owned())
        .get_slot()
        .await;
    let newest = newest.unwrap();
    until_scan_has_passed(&grid, newest).await;
    let dead = json!({"outcome": "dead", "reason": "our node does not know it"});
    for signature in [&unreadable, &readable.to_string()] {
        resolve(&grid, signature, dead.clone()).await.ok();
    }
    assert!(grid.stop().await);
    proxy.on_call({
        let unreadable = unreadable.clone();
        move |method, parameters| match method {
            "getTransaction" if parameters[0] == *unreadable => {
                CallAction::Error(-32_603, "Internal error")
            }
            _ => CallAction::Forward,
        }
    });
    grid.serve().await;
    eventually("the breaker is open", async || {
        (breaker(&grid).await.0 == "mismatch").then_some(())
    })
    .await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT signature FROM foreign_mints")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    assert_eq!(stored, [readable.to_string()]);
    proxy.forward_everything();
    eventually("the other is found too", async || {
        let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM foreign_mints")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (stored == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_one_that_lands_above_the_watermark_is_found_by_the_history_scan() {
    let (mut grid, proxy, _, signature) = quarantined(true).await;
    let dead = json!({"outcome": "dead", "reason": "our node does not know it"});
    resolve(&grid, &signature, dead).await.ok();
    assert!(grid.stop().await);
    // Without the search for unproven dead transactions.
    sqlx::query("UPDATE mint_transactions SET dead_unproven = FALSE")
        .execute(&grid.pool)
        .await
        .unwrap();
    proxy.forward_everything();
    grid.serve().await;
    eventually("the breaker is open", async || {
        (breaker(&grid).await.0 == "mismatch").then_some(())
    })
    .await;
    assert!(breaker(&grid).await.1.unwrap().contains(&signature));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_transaction_that_the_chain_shows_is_called_landed() {
    let mut grid = Grid::without_service(&[]).await;
    // The resolver does not run: nothing on chain is confirmed.
    let stop = CancellationToken::new();
    let options = PgConnectOptions::from_str(&grid.database_url).unwrap();
    let held = CancellationToken::new();
    let leader = tokio::spawn({
        let held = held.clone();
        run_as_leader(options, LeaderLock::Resolver, stop.clone(), move |lock| {
            held.cancel();
            async move { lock.cancelled().await }
        })
    });
    held.cancelled().await;
    grid.serve().await;
    // Nor does it scan the history, before which nothing is signed.
    grid.execute(
        "UPDATE ledger SET watermark_slot = 1;
         UPDATE history_scan SET known = wanted",
    )
    .await;
    let id = grid.meter().await.report("1").await;
    grid.until_count("submitted", 1).await;
    let signature: Vec<u8> = sqlx::query_scalar("SELECT signature FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let signature = Signature::try_from(signature).unwrap();
    Authority::of(&grid).await.until_finalized(&signature).await;
    let signature = signature.to_string();

    let landed = json!({"outcome": "landed", "reason": "the explorer shows it"});
    let answer = resolve(&grid, &signature, landed.clone()).await;
    assert_eq!(
        (answer.status, &answer.body["state"]),
        (409, &json!("recorded"))
    );
    sqlx::raw_sql(
        "UPDATE mint_transactions SET state = 'quarantined', last_valid_block_height = 1;
         UPDATE readings SET state = 'quarantined'",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    // The chain is not contradicted.
    let dead = json!({"outcome": "dead", "reason": "it must be"});
    let answer = resolve(&grid, &signature, dead).await;
    assert_eq!(answer.status, 409);
    let sentence = answer.body["detail"].as_str().unwrap();
    assert!(sentence.contains("landed in slot"), "{sentence}");

    let answer = resolve(&grid, &signature, landed).await.ok();
    assert_eq!(answer["state"], "confirmed");
    assert_eq!(answer["readings"], 1);
    assert_eq!(reading(&grid, &id).await["state"], "minted");
    stop.cancel();
    leader.await.unwrap();
    grid.until_count("finalized", 1).await;
    let events: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM events WHERE event_type = 'TokensMinted')
              + (SELECT count(*) FROM outbox WHERE event_type = 'TokensMinted')",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(events, 1, "its owner is notified");
    assert_eq!(actions(&grid).await, ["resolve_transaction"]);
    grid.audit_holds().await;
}
