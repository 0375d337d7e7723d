//! Stores the chain's charges for finalized transactions beside the costs that were booked when they were recorded.

use sqlx::{FromRow, PgPool};

use crate::chain::Charge;
use crate::db::BigInt;
use crate::domain::{MintNumber, TxSignature};

/// A finalized transaction whose charge has not been read.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct UnreadCharge {
    pub number: MintNumber,
    pub signature: TxSignature,
    #[sqlx(try_from = "BigInt")]
    pub fee_lamports: u64,
    /// Of the accounts that it was recorded to create.
    #[sqlx(try_from = "BigInt")]
    pub rent_lamports: u64,
}

/// The oldest above `after`.
pub async fn unread_charges(
    pool: &PgPool,
    after: Option<MintNumber>,
    limit: i64,
) -> sqlx::Result<Vec<UnreadCharge>> {
    sqlx::query_as(
        "SELECT number, signature, fee_lamports,
                booked_rent_lamports(account_creations, token_account_rent_lamports) AS rent_lamports
         FROM mint_transactions
         -- The predicate of the index mint_transactions_charge_unread.
         WHERE state = 'finalized'
           AND fee_lamports_charged IS NULL
           AND token_account_rent_lamports IS NOT NULL
           AND number > COALESCE($1, 0)
         ORDER BY number
         LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Returns whether it was stored now: of two processes only one counts the difference.
pub async fn store_charge(pool: &PgPool, number: MintNumber, charge: Charge) -> sqlx::Result<bool> {
    let stored = sqlx::query(
        "UPDATE mint_transactions
         SET fee_lamports_charged = $2, rent_lamports_charged = $3
         WHERE number = $1
           AND fee_lamports_charged IS NULL",
    )
    .bind(number)
    .bind(BigInt::from(charge.fee_lamports))
    .bind(BigInt::from(charge.rent_lamports))
    .execute(pool)
    .await?;
    Ok(stored.rows_affected() > 0)
}
