//! Who pays for what is minted, as the processes that mint tell those that have no key. Unlike what a ledger is bound to it may
//! change at any start: whoever starts last is right.

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

/// Tells the others. To be called by a process that mints, once the ledger is bound.
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

/// `None` until a process that mints has told it.
pub async fn fee_payer(pool: &PgPool) -> sqlx::Result<Option<Pubkey>> {
    let stored: Option<String> = sqlx::query_scalar("SELECT fee_payer FROM ledger")
        .fetch_one(pool)
        .await?;
    Ok(stored.and_then(known))
}

/// What is no address is nobody that could be watched.
pub(super) fn known(stored: String) -> Option<Pubkey> {
    stored.parse().ok()
}
