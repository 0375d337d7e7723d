//! A refused reading is retried after growing delays, whose ends are stored with it, and its neighbours never wait for it.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use solana_sdk::program_option::COption;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signer;
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_token_interface::instruction::{burn, close_account};
use spl_token_interface::state::{Account, AccountState};

use crate::support::authority::Authority;
use crate::support::consensus::under_each_consensus;
use crate::support::proxy::{CallAction, Proxy, carried_transaction, drop_send, instruction_with};
use crate::support::world::world;
use crate::support::{Grid, Meter, eventually};

/// Simulation refuses every payment to this wallet from now on; counts how often it did.
fn refuse_payments_to(proxy: &Proxy, wallet: Pubkey) -> Arc<AtomicUsize> {
    let refusals = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refusals);
    proxy.on_call(move |method, parameters| {
        if method != "simulateTransaction" {
            return CallAction::Forward;
        }
        // The wallet is named by the creation of its account alone; the next instruction pays it.
        let creation = instruction_with(&carried_transaction(parameters), &wallet);
        match creation {
            None => CallAction::Forward,
            Some(creation) => {
                counter.fetch_add(1, Ordering::SeqCst);
                CallAction::Answer(json!({
                    "context": { "slot": 1 },
                    "value": {
                        "err": { "InstructionError": [creation + 1, { "Custom": 17 }] },
                        "logs": [], "accounts": null, "unitsConsumed": 0, "returnData": null
                    }
                }))
            }
        }
    });
    refusals
}

/// The stored retry state of a reading.
#[derive(Debug, sqlx::FromRow)]
struct RetryState {
    state: String,
    attempts: i32,
    next_attempt_at: DateTime<Utc>,
    job_run_at: DateTime<Utc>,
    job_status: String,
}

async fn retry_state(grid: &Grid, reading: &str) -> RetryState {
    sqlx::query_as(
        "SELECT reading.state, reading.attempts, reading.next_attempt_at,
                job.run_at AS job_run_at, job.status AS job_status
         FROM readings AS reading
         JOIN apalis.jobs AS job ON job.idempotency_key = reading.id::TEXT
         WHERE reading.id = $1::UUID",
    )
    .bind(reading)
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

/// Waits for the attempt and returns what is stored after it.
async fn after_attempt(grid: &Grid, reading: &str, attempts: i32) -> RetryState {
    eventually(&format!("attempt {attempts} is used"), async || {
        let stored = retry_state(grid, reading).await;
        // The handler must have ended too: then no process changes the job until it is due.
        let is_idle =
            stored.state == "failed" || ["Pending", "Failed"].contains(&stored.job_status.as_str());
        (stored.attempts == attempts && is_idle).then_some(stored)
    })
    .await
}

/// Makes the reading and its job due now.
async fn make_due(grid: &Grid, reading: &str) {
    sqlx::query("UPDATE readings SET next_attempt_at = now() WHERE id = $1::UUID")
        .bind(reading)
        .execute(&grid.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE apalis.jobs SET run_at = now() WHERE idempotency_key = $1")
        .bind(reading)
        .execute(&grid.pool)
        .await
        .unwrap();
}

async fn mint_failed_events(grid: &Grid) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM outbox WHERE event_type = 'MintFailed')
              + (SELECT count(*) FROM events WHERE event_type = 'MintFailed')",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reading_waits_5_10_and_20_minutes_by_stored_times_and_is_failed_once() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = {
        let mut grid =
            Grid::on_chain(&proxy.url, &[("TOKENIZATION_MAX_RETRY_ATTEMPTS", "3")]).await;
        grid.serve().await;
        grid
    };
    let meter = grid.meter().await;
    refuse_payments_to(&proxy, meter.wallet.pubkey());
    let reading = meter.report("1").await;

    for (attempts, delay_secs) in [(1, 300.0), (2, 600.0), (3, 1200.0)] {
        let refused_after = Utc::now();
        let stored = after_attempt(&grid, &reading, attempts).await;
        assert_eq!(stored.state, "pending", "{stored:?}");
        assert_eq!(stored.job_run_at, stored.next_attempt_at, "{stored:?}");
        let delay = (stored.next_attempt_at - refused_after).as_seconds_f64();
        // Plus or minus a fifth, and the duration of the attempt itself.
        assert!(
            (delay_secs * 0.8..delay_secs * 1.2 + 30.0).contains(&delay),
            "after attempt {attempts}: {delay} s"
        );
        assert_eq!(mint_failed_events(&grid).await, 0);
        make_due(&grid, &reading).await;
    }

    let last = after_attempt(&grid, &reading, 4).await;
    assert_eq!(last.state, "failed");
    assert_eq!(
        mint_failed_events(&grid).await,
        1,
        "its owner is notified once"
    );
    let shown = meter
        .api
        .get(&format!("/api/readings/{reading}"))
        .await
        .ok();
    assert_eq!(shown["attempts"], 4, "the first try and three retries");
    let error = shown["last_error"].as_str().unwrap();
    assert!(error.contains("simulation refused its payment"), "{error}");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_in_between_does_not_bypass_the_backoff() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    let refusals = refuse_payments_to(&proxy, meter.wallet.pubkey());
    let reading = meter.report("1").await;
    let refused = after_attempt(&grid, &reading, 1).await;
    // Its job is lost, so it would be a straggler if its backoff were over.
    sqlx::query("DELETE FROM apalis.jobs WHERE idempotency_key = $1")
        .bind(&reading)
        .execute(&grid.pool)
        .await
        .unwrap();
    let swept = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM apalis.jobs WHERE job_type = 'SweepUnminted' AND status = 'Done'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap()
    };
    let before = swept().await;
    grid.until("three more sweeps are over", async || {
        swept().await >= before + 3
    })
    .await;
    let (state, attempts, next_attempt_at): (String, i32, DateTime<Utc>) =
        sqlx::query_as("SELECT state, attempts, next_attempt_at FROM readings WHERE id = $1::UUID")
            .bind(&reading)
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!((state.as_str(), attempts), ("pending", 1));
    assert_eq!(next_attempt_at, refused.next_attempt_at);
    assert_eq!(
        refusals.load(Ordering::SeqCst),
        1,
        "it was not even simulated"
    );

    // Once it is due, and payable again, a sweep finds it.
    proxy.forward_everything();
    sqlx::query("UPDATE readings SET next_attempt_at = now() WHERE id = $1::UUID")
        .bind(&reading)
        .execute(&grid.pool)
        .await
        .unwrap();
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

/// The answer of `getMultipleAccounts` for usable token accounts of these wallets, in the requested order.
fn usable_accounts(mint: Pubkey, wallets: &[Pubkey], addresses: &Value) -> Value {
    let owner_of = |address: &str| {
        let address = Pubkey::from_str(address).unwrap();
        wallets
            .iter()
            .copied()
            .find(|wallet| get_associated_token_address(wallet, &mint) == address)
            .unwrap()
    };
    let accounts: Vec<Value> = addresses
        .as_array()
        .unwrap()
        .iter()
        .map(|address| {
            let account = Account {
                mint,
                owner: owner_of(address.as_str().unwrap()),
                amount: 0,
                delegate: COption::None,
                state: AccountState::Initialized,
                is_native: COption::None,
                delegated_amount: 0,
                close_authority: COption::None,
            };
            let mut bytes = vec![0; Account::LEN];
            account.pack_into_slice(&mut bytes);
            json!({
                "data": [STANDARD.encode(bytes), "base64"],
                "executable": false, "lamports": 2_039_280, "rentEpoch": 0,
                "owner": spl_token_interface::ID.to_string(), "space": Account::LEN,
            })
        })
        .collect();
    json!({ "context": { "slot": 1 }, "value": accounts })
}

async fn close_token_account(authority: &Authority, meter: &Meter, balance: u64) {
    let (token, owner) = (spl_token_interface::ID, meter.wallet.pubkey());
    let account = get_associated_token_address(&owner, &authority.mint);
    let burn = burn(&token, &account, &authority.mint, &owner, &[], balance).unwrap();
    authority.send(burn, &[&meter.wallet]).await;
    let close = close_account(&token, &account, &owner, &owner, &[]).unwrap();
    authority.send(close, &[&meter.wallet]).await;
}

under_each_consensus!(a_reading_that_only_the_chain_refuses_uses_an_attempt_and_is_packed_alone,);

async fn a_reading_that_only_the_chain_refuses_uses_an_attempt_and_is_packed_alone() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("MINT_LINGER_MS", "500")]).await;
    grid.serve().await;
    let (bad, good) = (grid.meter().await, grid.meter().await);
    bad.report("1").await;
    good.report("1").await;
    grid.until_count("finalized", 2).await;
    let authority = Authority::of(&grid).await;
    close_token_account(&authority, &bad, 1_000_000_000).await;
    // The account was closed after it had been checked and the transaction simulated.
    let (mint, wallets) = (authority.mint, [bad.wallet.pubkey(), good.wallet.pubkey()]);
    let payer = authority.payer().to_string();
    proxy.on_call(move |method, parameters| match method {
        // The probe of fee payer and mint gets the true answer.
        "getMultipleAccounts" if parameters[0][0] == payer.as_str() => CallAction::Forward,
        "getMultipleAccounts" => {
            CallAction::Answer(usable_accounts(mint, &wallets, &parameters[0]))
        }
        "simulateTransaction" => CallAction::Answer(json!({
            "context": { "slot": 1 },
            "value": {
                "err": null, "logs": [], "accounts": null, "unitsConsumed": 0, "returnData": null
            }
        })),
        _ => CallAction::Forward,
    });
    let refused = bad.report("2").await;
    good.report("2").await;

    let stored = after_attempt(&grid, &refused, 1).await;
    assert_eq!(stored.state, "pending");
    assert!(stored.next_attempt_at > Utc::now());
    grid.until_count("finalized", 3).await;
    let (alone, error): (bool, String) =
        sqlx::query_as("SELECT pack_alone, last_error FROM readings WHERE id = $1::UUID")
            .bind(&refused)
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert!(alone);
    assert!(error.starts_with("failed on chain: "), "{error}");
    assert!(error.contains(&bad.wallet.pubkey().to_string()), "{error}");
    assert!(error.contains("token account"), "{error}");

    // Once the endpoint shows the closed account, the reading fails permanently, with a readable reason.
    proxy.forward_everything();
    make_due(&grid, &refused).await;
    grid.until_count("failed", 1).await;
    assert_eq!(mint_failed_events(&grid).await, 1);
    grid.audit_holds().await;
}

/// Reports everything that is sent as landed with this error, finalized.
fn let_everything_fail_with(proxy: &Proxy, error: Value) {
    proxy.on_call(move |method, parameters| match method {
        "sendTransaction" => drop_send(parameters),
        "getSignatureStatuses" => {
            let status = json!({
                "slot": 1, "confirmations": null, "err": error, "status": { "Err": error },
                "confirmationStatus": "finalized",
            });
            let asked = parameters[0].as_array().unwrap().len();
            CallAction::Answer(json!({ "context": { "slot": 1 }, "value": vec![status; asked] }))
        }
        _ => CallAction::Forward,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_alone_in_its_transaction_is_not_blamed_for_the_fee_payer_or_the_service() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    // The first reading's transaction creates its account in this instruction, the second one's pays in it.
    let faults = [
        // The fee payer could not pay the rent.
        (json!({ "InstructionError": [0, { "Custom": 1 }] }), false),
        // Out of compute units: the next transaction requests the full ceiling, as one with a reading alone does.
        (
            json!({ "InstructionError": [0, "ProgramFailedToComplete"] }),
            true,
        ),
    ];
    let mut paid = 0;
    for (fault, is_packed_alone) in faults {
        let_everything_fail_with(&proxy, fault);
        let reading = meter.report("1").await;
        paid += 1;
        grid.until("its transaction is dead", async || {
            let dead: i64 =
                sqlx::query_scalar("SELECT count(*) FROM mint_transactions WHERE state = 'dead'")
                    .fetch_one(&grid.pool)
                    .await
                    .unwrap();
            dead == paid
        })
        .await;
        let stored = retry_state(&grid, &reading).await;
        assert_eq!((stored.state.as_str(), stored.attempts), ("pending", 0));
        assert_eq!(stored.job_run_at, stored.next_attempt_at, "{stored:?}");
        let alone: bool = sqlx::query_scalar("SELECT pack_alone FROM readings WHERE id = $1::UUID")
            .bind(&reading)
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        assert_eq!(alone, is_packed_alone);
        proxy.forward_everything();
        // Without an admin, after a pause that is not a backoff.
        grid.until_count("finalized", paid).await;
        let now = retry_state(&grid, &reading).await;
        assert_eq!(now.attempts, 0);
        assert_eq!(now.next_attempt_at, stored.next_attempt_at, "put off once");
    }
    let signed: i64 = sqlx::query_scalar("SELECT count(*) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(signed, 4, "each was signed twice");
    grid.audit_holds().await;
}
