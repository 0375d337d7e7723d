//! Finds wallets that have a payment under way, or had one: their token account is not created a second time.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::domain::Wallet;

/// Of these wallets, those that a transaction has paid which is confirmed and not final yet, and those that were paid at finality.
///
/// A payment that is merely recorded does not count: a backlog of one new wallet would wait for its first confirmation. So an owner who
/// closes an account within that second gains the rent of the transactions that were recorded in it, and of no others.
pub(super) async fn paid_before(
    pool: &PgPool,
    wallets: &[Wallet],
) -> sqlx::Result<HashSet<Wallet>> {
    let paid: Vec<Wallet> = sqlx::query_scalar(
        // Both parts read a small index: readings_minted, and the key of token_accounts.
        "SELECT wallet FROM readings WHERE state = 'minted' AND wallet = ANY($1)
         UNION
         SELECT wallet FROM token_accounts WHERE wallet = ANY($1)",
    )
    .bind(wallets)
    .fetch_all(pool)
    .await?;
    Ok(paid.into_iter().collect())
}
