//! A token account belongs to the wallet's owner: it may be closed, given away, or created by another party beforehand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signer;
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_token_interface::instruction::{burn, close_account};

use crate::support::audit::difference;
use crate::support::authority::Authority;
use crate::support::chain_breaker::{chain_of, no_attempt_is_used, until_closed};
use crate::support::consensus::{under_each_consensus, under_tower};
use crate::support::world::world;
use crate::support::{CallAction, Grid, Meter, Proxy};

async fn reading(meter: &Meter, id: &str) -> Value {
    meter.api.get(&format!("/api/readings/{id}")).await.ok()
}

/// Events of the type about this reading.
async fn events_about(grid: &Grid, event_type: &str, reading: &str) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM events WHERE event_type = $1 AND body LIKE $2)
              + (SELECT count(*) FROM outbox WHERE event_type = $1 AND body LIKE $2)",
    )
    .bind(event_type)
    .bind(format!("%{reading}%"))
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

/// Reports for the meter with the unusable account and for a neighbour together: the first fails alone, the second is paid.
async fn fails_alone(grid: &Grid, troubled: &Meter, neighbour: &Meter, reason: &str) {
    let before = grid.count("finalized").await;
    let refused = troubled.report("1").await;
    let paid = neighbour.report("1").await;
    grid.until_count("failed", 1).await;
    grid.until_count("finalized", before + 1).await;

    let refused = reading(troubled, &refused).await;
    assert_eq!(refused["state"], "failed");
    let error = refused["last_error"].as_str().unwrap();
    assert!(error.contains(reason), "{error}");
    assert!(
        error.ends_with("recreate the account, then retry"),
        "{error}"
    );
    assert_eq!(refused["transaction_signature"], Value::Null);
    assert_eq!(reading(neighbour, &paid).await["state"], "finalized");
    let id = refused["reading_id"].as_str().unwrap();
    assert_eq!(
        events_about(grid, "MintFailed", id).await,
        1,
        "its owner is notified once"
    );
    let audit = grid.audit_holds().await;
    assert_eq!(audit["outstanding"]["readings"], 1);
}

under_each_consensus!(
    a_token_account_closed_by_its_owner_is_not_paid_for_twice,
    a_token_account_given_to_another_owner_is_not_paid,
);

under_tower!(
    an_account_that_is_closed_before_its_payment_is_final_is_not_created_again,
    an_account_that_one_answer_does_not_hold_fails_no_reading,
    a_neighbour_is_paid_by_the_endpoint_that_is_not_behind,
);

async fn a_token_account_closed_by_its_owner_is_not_paid_for_twice() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let (meter, neighbour) = (grid.meter().await, grid.meter().await);
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let owner = meter.wallet.pubkey();
    let account = get_associated_token_address(&owner, &authority.mint);
    let token = spl_token_interface::ID;
    authority.burn(&meter, 1_000_000_000).await;
    let close = close_account(&token, &account, &owner, &owner, &[]).unwrap();
    authority.send(close, &[&meter.wallet]).await;

    fails_alone(&grid, &meter, &neighbour, "was closed by its owner").await;
}

async fn an_account_that_is_closed_before_its_payment_is_final_is_not_created_again() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let meter = grid.meter().await;
    let authority = Authority::of(&grid).await;
    let owner = meter.wallet.pubkey();
    let account = get_associated_token_address(&owner, &authority.mint);
    let token = spl_token_interface::ID;
    let paid = meter.report("1").await;
    grid.until_count("minted", 1).await;
    let burned = burn(
        &token,
        &account,
        &authority.mint,
        &owner,
        &[],
        1_000_000_000,
    )
    .unwrap();
    let closed = close_account(&token, &account, &owner, &owner, &[]).unwrap();
    authority
        .send_at_once(&[burned, closed], &[&meter.wallet])
        .await;
    grid.until("the account is gone", async || {
        let shown = authority
            .rpc
            .get_account_with_commitment(&account, authority.rpc.commitment());
        shown.await.unwrap().value.is_none()
    })
    .await;
    assert_eq!(grid.count("finalized").await, 0, "its payment is not final");
    let refused = meter.report("1").await;
    grid.until_count("failed", 1).await;
    let error = reading(&meter, &refused).await["last_error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("was closed by its owner"), "{error}");
    assert_eq!(reading(&meter, &paid).await["state"], "finalized");
    let creations: i64 = sqlx::query_scalar("SELECT sum(account_creations) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(creations, 1, "the account is paid for once");
    grid.audit_holds().await;
}

async fn a_token_account_given_to_another_owner_is_not_paid() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let (meter, neighbour) = (grid.meter().await, grid.meter().await);
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let give_away = authority.give_away(&meter, &Pubkey::new_unique());
    authority.send(give_away, &[&meter.wallet]).await;

    fails_alone(&grid, &meter, &neighbour, "no longer belongs to the wallet").await;
}

/// No instruction of a mint transaction checks the owner: what was signed before still lands.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_names_an_account_that_was_given_away_between_signature_and_landing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    proxy.on_call(|method, _| match method {
        "sendTransaction" => CallAction::Status(503),
        _ => CallAction::Forward,
    });
    meter.report("2").await;
    grid.until_count("submitted", 1).await;
    let stranger = Pubkey::new_unique();
    let give_away = authority.give_away(&meter, &stranger);
    // Not by the proxy, which refuses sends.
    let direct = Authority::through(&grid, world().rpc_url()).await;
    direct.send(give_away, &[&meter.wallet]).await;
    proxy.forward_everything();
    grid.until_count("finalized", 2).await;
    let report = grid.audit().await;
    let found = difference(&report, "wrong_owner");
    assert_eq!(found["owner"], stranger.to_string());
    assert_eq!(found["wallet"], meter.wallet.pubkey().to_string());
    assert_eq!(report["differences"].as_array().unwrap().len(), 1);
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_account_that_another_party_created_is_paid() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let authority = Authority::of(&grid).await;
    let create = create_associated_token_account_idempotent(
        &authority.payer(),
        &meter.wallet.pubkey(),
        &authority.mint,
        &spl_token_interface::ID,
    );
    authority.send(create, &[]).await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let creations: i64 = sqlx::query_scalar("SELECT sum(account_creations) FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(creations, 0, "no rent is paid for an account that is there");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lamports_sent_ahead_to_the_account_do_no_harm() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let authority = Authority::of(&grid).await;
    let account = get_associated_token_address(&meter.wallet.pubkey(), &authority.mint);
    let gift = solana_system_interface::instruction::transfer(
        &authority.payer(),
        &account,
        // Rent of an account without data: an account with less would be removed.
        650_240,
    );
    authority.send(gift, &[]).await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

/// Makes the answer say that none of the accounts exists.
fn without_accounts(mut answer: Value) -> Value {
    if let Some(accounts) = answer["value"].as_array_mut() {
        accounts.fill(Value::Null);
    }
    answer
}

/// The same, as of an old slot.
fn without_accounts_long_ago(answer: Value) -> Value {
    let mut answer = without_accounts(answer);
    answer["context"]["slot"] = json!(1);
    answer
}

/// How an endpoint misreports token accounts, by the requested commitment.
#[derive(Clone, Copy, Debug)]
struct FalseAnswer {
    confirmed: fn(Value) -> Value,
    finalized: fn(Value) -> Value,
}

/// From now on the endpoint misreports token accounts and nothing else; counts the wrong answers.
fn misreport_token_accounts(
    proxy: &Proxy,
    payer: Pubkey,
    false_answer: FalseAnswer,
) -> Arc<AtomicU64> {
    let false_answers = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&false_answers);
    let payer = payer.to_string();
    proxy.on_call(move |method, parameters| {
        // The probe of fee payer and mint gets the true answer.
        if method != "getMultipleAccounts" || parameters[0][0] == payer.as_str() {
            return CallAction::Forward;
        }
        counter.fetch_add(1, Ordering::SeqCst);
        match parameters[1]["commitment"].as_str() {
            Some("finalized") => CallAction::Edit(false_answer.finalized),
            _ => CallAction::Edit(false_answer.confirmed),
        }
    });
    false_answers
}

/// The reading of this meter waits through several checks of its account and uses no attempt.
async fn waits_and_loses_nothing(grid: &Grid, meter: &Meter, false_answers: &AtomicU64) {
    let before = grid.count("finalized").await;
    meter.report("1").await;
    grid.until("its account was queried several times", async || {
        false_answers.load(Ordering::SeqCst) >= 3
    })
    .await;
    assert_eq!(grid.count("failed").await, 0);
    assert_eq!(grid.count("pending").await, 1);
    assert_eq!(grid.count("finalized").await, before);
    no_attempt_is_used(grid).await;
}

async fn an_account_that_one_answer_does_not_hold_fails_no_reading() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let payer = Authority::of(&grid).await.payer();
    let false_answers = [
        // The endpoint is far behind.
        FalseAnswer {
            confirmed: without_accounts_long_ago,
            finalized: without_accounts_long_ago,
        },
        // Only one of its nodes is behind, and that node answers the query for finalized state.
        FalseAnswer {
            confirmed: without_accounts,
            finalized: without_accounts_long_ago,
        },
        // An account that was closed on a fork: confirmed, but never finalized.
        FalseAnswer {
            confirmed: without_accounts,
            finalized: |answer| answer,
        },
    ];
    let mut paid = 1;
    for false_answer in false_answers {
        let answers = misreport_token_accounts(&proxy, payer, false_answer);
        waits_and_loses_nothing(&grid, &meter, &answers).await;
        proxy.forward_everything();
        paid += 1;
        grid.until_count("finalized", paid).await;
        until_closed(&grid.admin()).await;
    }
    no_attempt_is_used(&grid).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "4000000000");
}

async fn a_neighbour_is_paid_by_the_endpoint_that_is_not_behind() {
    let (behind, good) = (
        Proxy::start(world().rpc_url()).await,
        Proxy::start(world().rpc_url()).await,
    );
    let urls = format!("{},{}", behind.url, good.url);
    let mut grid = Grid::on_chain(&urls, &[("MINT_LINGER_MS", "200")]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let payer = Authority::of(&grid).await.payer();
    let false_answer = FalseAnswer {
        confirmed: without_accounts_long_ago,
        finalized: without_accounts_long_ago,
    };
    let neighbour = grid.meter().await;
    let false_answers = misreport_token_accounts(&behind, payer, false_answer);
    meter.report("1").await;
    neighbour.report("1").await;
    grid.until_count("finalized", 3).await;
    assert!(false_answers.load(Ordering::SeqCst) > 0, "it was asked");
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_recovers_on_another_chain_is_not_queried_for_accounts() {
    const FOREIGN: &str = "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY";
    let (good, foreign) = (
        Proxy::start(world().rpc_url()).await,
        Proxy::start(world().rpc_url()).await,
    );
    // Away at the start: it is unknown which chain it is on.
    foreign.on_call(|_, _| CallAction::Drop);
    let urls = format!("{},{}", good.url, foreign.url);
    let mut grid = Grid::on_chain(&urls, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let admin = grid.admin();
    let asked_for_accounts = foreign.received("getMultipleAccounts");
    foreign.on_call(|method, _| match method {
        "getGenesisHash" => CallAction::Answer(json!(FOREIGN)),
        "getMultipleAccounts" => CallAction::Edit(without_accounts),
        _ => CallAction::Forward,
    });
    grid.until("it is seen to be on another chain", async || {
        let chain = chain_of(&admin).await;
        chain["endpoints"][1]["healthy"] == false && chain.to_string().contains(FOREIGN)
    })
    .await;
    // From now on it is the only endpoint that answers.
    good.on_call(|_, _| CallAction::Drop);
    meter.report("1").await;
    grid.until("minting waits", async || {
        chain_of(&admin).await["state"] == "open"
    })
    .await;
    assert_eq!(grid.count("pending").await, 1);
    good.forward_everything();
    grid.until_count("finalized", 2).await;
    assert_eq!(
        foreign.received("getMultipleAccounts"),
        asked_for_accounts,
        "an endpoint of another chain was asked for accounts"
    );
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}
