//! Finds wallets that have a payment under way, or had one: their token account is not created a second time.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::domain::Wallet;

/// Of these wallets, those that a transaction pays which is recorded or confirmed and not final yet, and those that were paid at
/// finality. A quarantined transaction does not count: nothing is known of it, for a long time.
pub(super) async fn paid_before(
    pool: &PgPool,
    wallets: &[Wallet],
) -> sqlx::Result<HashSet<Wallet>> {
    let paid: Vec<Wallet> = sqlx::query_scalar(
        // Each part reads a small index: readings_unminted, readings_minted, and the key of token_accounts.
        "SELECT wallet FROM readings WHERE state = 'submitted' AND wallet = ANY($1)
         UNION
         SELECT wallet FROM readings WHERE state = 'minted' AND wallet = ANY($1)
         UNION
         SELECT wallet FROM token_accounts WHERE wallet = ANY($1)",
    )
    .bind(wallets)
    .fetch_all(pool)
    .await?;
    Ok(paid.into_iter().collect())
}
