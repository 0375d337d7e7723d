//! A wallet's token account is its owner's: it may be closed, given away, or made by somebody else beforehand.

use serde_json::Value;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signer;
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_token_interface::instruction::{AuthorityType, burn, close_account, set_authority};

use crate::audit::Authority;
use crate::support::{Grid, Meter};

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

/// Reports for the meter in trouble and for a neighbour at once: the one fails alone, the other is paid.
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
        "its owner is told once"
    );
    let audit = grid.audit_holds().await;
    assert_eq!(audit["outstanding"]["readings"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_account_closed_by_its_owner_is_not_paid_for_twice() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let (meter, neighbour) = (grid.meter().await, grid.meter().await);
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let owner = meter.wallet.pubkey();
    let account = get_associated_token_address(&owner, &authority.mint);
    let token = spl_token_interface::ID;
    let burn = burn(
        &token,
        &account,
        &authority.mint,
        &owner,
        &[],
        1_000_000_000,
    )
    .unwrap();
    authority.send(burn, &[&meter.wallet]).await;
    let close = close_account(&token, &account, &owner, &owner, &[]).unwrap();
    authority.send(close, &[&meter.wallet]).await;

    fails_alone(&grid, &meter, &neighbour, "was closed by its owner").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_account_given_to_a_stranger_is_not_paid() {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let (meter, neighbour) = (grid.meter().await, grid.meter().await);
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let owner = meter.wallet.pubkey();
    let account = get_associated_token_address(&owner, &authority.mint);
    let stranger = Pubkey::new_unique();
    let give_away = set_authority(
        &spl_token_interface::ID,
        &account,
        Some(&stranger),
        AuthorityType::AccountOwner,
        &owner,
        &[],
    )
    .unwrap();
    authority.send(give_away, &[&meter.wallet]).await;

    fails_alone(&grid, &meter, &neighbour, "no longer belongs to the wallet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_account_that_somebody_else_made_is_paid() {
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
        // Rent of an account without data: less would not stay.
        890_880,
    );
    authority.send(gift, &[]).await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}
