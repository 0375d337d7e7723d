//! A chain keeps the rent that was chosen at its begin.

use super::*;

const TOKEN_ACCOUNT_BYTES: usize = 165;

async fn token_account_rent(chain: &Localnet) -> u64 {
    chain
        .client()
        .get_minimum_balance_for_rent_exemption(TOKEN_ACCOUNT_BYTES)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_keeps_its_rent_and_a_new_one_has_todays() {
    let dir = TempDir::new("rent");
    let chosen = [("LOCALNET_RENT_LAMPORTS_PER_BYTE", "6960")];
    let mut chain = Localnet::start_with(dir.path(), "127.0.0.1:0", &chosen).await;
    assert_eq!(token_account_rent(&chain).await, 2_039_280);
    assert!(chain.stop().await.success());
    chain.restart().await;
    assert_eq!(token_account_rent(&chain).await, 2_039_280);
    // Accounts that paid the old rent stay in use, and new ones pay the present one.
    Money::create(&chain.client()).await;

    let new = Localnet::start(State::Ephemeral).await;
    assert_eq!(token_account_rent(&new).await, 1_488_440);
    let money = Money::create(&new.client()).await;
    let account = new.client().get_balance(&money.account).await.unwrap();
    assert_eq!(account, 1_488_440);
}
