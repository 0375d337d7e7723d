//! The address that pays for mint transactions: processes that mint store it for those that have no key.
//!
//! Unlike the ledger's binding it may change at any start: the process that started last is right.

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

/// Called by a process that mints, once the ledger is bound.
pub async fn store_fee_payer(pool: &PgPool, fee_payer: &Pubkey) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         SET fee_payer = $1
         WHERE fee_payer IS DISTINCT FROM $1",
    )
    .bind(fee_payer.to_string())
    .execute(pool)
    .await?;
    Ok(())
}

/// `None` until a process that mints has stored it.
pub async fn fee_payer(pool: &PgPool) -> sqlx::Result<Option<Pubkey>> {
    let stored: Option<String> = sqlx::query_scalar("SELECT fee_payer FROM ledger")
        .fetch_one(pool)
        .await?;
    Ok(stored.and_then(parse))
}

/// A text that is not an address counts as none.
pub(super) fn parse(stored: String) -> Option<Pubkey> {
    stored.parse().ok()
}
