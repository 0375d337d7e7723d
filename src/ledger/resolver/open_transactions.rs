//! The transactions that have not ended: the Resolver's work list.

use std::time::Duration;

use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::db::BigInt;
use crate::domain::{MintNumber, MintTransactionState, TxSignature, Wallet};

/// A recorded, confirmed or quarantined mint transaction.
#[derive(Clone, Debug, FromRow)]
pub struct OpenTransaction {
    pub number: MintNumber,
    pub signature: TxSignature,
    pub state: MintTransactionState,
    #[sqlx(try_from = "BigInt")]
    pub blockhash_slot: u64,
    #[sqlx(try_from = "BigInt")]
    pub last_valid_block_height: u64,
    pub endpoint: String,
    /// Milliseconds since it was recorded, by the database's clock.
    pub age_ms: i64,
    #[sqlx(try_from = "BigInt")]
    pub unproven_secs: u64,
}

impl OpenTransaction {
    /// Since it was recorded.
    pub fn age(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.age_ms).unwrap_or_default())
    }
}

/// Bounds the memory of one round; transactions beyond it wait until earlier ones end.
const OPEN_PER_ROUND: i64 = 10_000;

/// All that are open, lowest number first.
pub async fn open_transactions(pool: &PgPool) -> sqlx::Result<Vec<OpenTransaction>> {
    sqlx::query_as(
        "SELECT number, signature, state, blockhash_slot, last_valid_block_height, endpoint, unproven_secs,
                (EXTRACT(EPOCH FROM now() - recorded_at) * 1000)::BIGINT AS age_ms
         FROM mint_transactions
         WHERE state IN ('recorded', 'confirmed', 'quarantined')
         ORDER BY number
         LIMIT $1",
    )
    .bind(OPEN_PER_ROUND)
    .fetch_all(pool)
    .await
}

/// How many are open.
pub async fn count_open_transactions(pool: &PgPool) -> sqlx::Result<u64> {
    let count: BigInt = sqlx::query_scalar(
        "SELECT count(*)
         FROM mint_transactions
         WHERE state IN ('recorded', 'confirmed', 'quarantined')",
    )
    .fetch_one(pool)
    .await?;
    Ok(count.get())
}

/// The signed bytes of these transactions, by number.
pub async fn signed_bytes(
    pool: &PgPool,
    numbers: &[MintNumber],
) -> sqlx::Result<Vec<(MintNumber, Vec<u8>)>> {
    sqlx::query_as(
        "SELECT number, wire
         FROM mint_transactions
         WHERE number = ANY($1)
         ORDER BY number",
    )
    .bind(numbers)
    .fetch_all(pool)
    .await
}

/// Counts one more send of each of these transactions.
pub async fn note_sends(pool: &PgPool, numbers: &[MintNumber]) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE mint_transactions
         SET sends = sends + 1, sent_at = COALESCE(sent_at, now())
         WHERE number = ANY($1)",
    )
    .bind(numbers)
    .execute(pool)
    .await?;
    Ok(())
}

/// Adds time that passed without a proof while an endpoint answered.
pub async fn add_unproven_secs(
    pool: &PgPool,
    numbers: &[MintNumber],
    secs: u64,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE mint_transactions
         SET unproven_secs = unproven_secs + $2
         WHERE number = ANY($1)",
    )
    .bind(numbers)
    .bind(BigInt::from(secs))
    .execute(pool)
    .await?;
    Ok(())
}

/// The readings that a transaction pays, with their wallets.
pub async fn readings_of(pool: &PgPool, number: MintNumber) -> sqlx::Result<Vec<(Uuid, Wallet)>> {
    sqlx::query_as(
        "SELECT reading.id, reading.wallet
         FROM mint_transaction_readings AS link
         JOIN readings AS reading ON reading.id = link.reading
         WHERE link.transaction = $1",
    )
    .bind(number)
    .fetch_all(pool)
    .await
}
