//! A person resolves a landed mint that the ledger lacks, and the ledger breaker closes.

use crate::support::Grid;
use crate::support::admin_log::admin_log;
use crate::support::audit::{done, refused};
use crate::support::authority::Authority;
use crate::support::ledger::{breaker, until_breaker};

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_mint_is_booked_as_foreign_and_minting_continues() {
    let (mut grid, meter) = Grid::with_one_payment().await;
    grid.stop().await;
    let authority = Authority::of(&grid).await;
    let by_hand = authority.mint_by_hand(&meter, 7).await;
    let ours: Vec<u8> = sqlx::query_scalar("SELECT signature FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let ours = solana_sdk::signature::Signature::try_from(ours.as_slice())
        .unwrap()
        .to_string();
    grid.serve().await;
    until_breaker(&grid, "mismatch").await;

    let unknown = solana_sdk::signature::Signature::from([9; 64]).to_string();
    for (arguments, reason) in [
        (vec!["--adopt", &by_hand], "no memo of this program"),
        (vec!["--adopt", &ours], "it pays readings"),
        (vec!["--adopt", &unknown], "no RPC endpoint shows"),
        (vec!["--foreign", &ours, "x"], "it pays readings"),
        (vec!["--foreign", &unknown, "x"], "no RPC endpoint shows"),
        (vec!["--foreign", &by_hand, " "], "say in 1 to 500"),
        (vec!["--foreign", "x", "y"], "not a signature"),
    ] {
        let sentence = refused(&grid, &arguments).await;
        assert!(sentence.contains(reason), "{arguments:?}: {sentence}");
    }
    assert_eq!(breaker(&grid).await.0, "mismatch");
    assert!(
        admin_log(&grid).await.is_empty(),
        "what is refused is not logged"
    );

    let report = done(&grid, &["--foreign", &by_hand, "ticket 7: a test by hand"]).await;
    let foreign = &report["foreign"][0];
    assert_eq!(foreign["signature"], by_hand);
    assert_eq!(foreign["booked_reason"], "ticket 7: a test by hand");
    let log = admin_log(&grid).await;
    assert_eq!(log.len(), 1);
    let (actor, action, details) = &log[0];
    assert_eq!(
        (actor.as_str(), action.as_str()),
        ("operator ann", "book_foreign_mint")
    );
    assert_eq!(details["signature"], by_hand);
    assert_eq!(details["base_units"], "7");
    let again = refused(&grid, &["--foreign", &by_hand, "again"]).await;
    assert!(again.contains("ticket 7"), "{again}");

    until_breaker(&grid, "closed").await;
    meter.at(&grid.user("prosumer")).report("1").await;
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
    grid.stop().await;
}
