//! The transactions that have not ended.

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
    pub last_valid_block_height: u64,
    pub endpoint: String,
    /// Milliseconds since it was recorded, by the database's clock.
    pub age_ms: i64,
}

impl OpenTransaction {
    /// Since it was recorded.
    pub fn age(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.age_ms).unwrap_or_default())
    }
}

/// Bounds the memory of one round; older ones wait until newer ones end or become late.
const OPEN_PER_ROUND: i64 = 10_000;

/// Those that are not late, newest first.
pub async fn in_time(pool: &PgPool) -> sqlx::Result<Vec<OpenTransaction>> {
    sqlx::query_as(
        "SELECT number, signature, state, last_valid_block_height, endpoint,
                (EXTRACT(EPOCH FROM now() - recorded_at) * 1000)::BIGINT AS age_ms
         FROM mint_transactions
         WHERE state IN ('recorded', 'confirmed')
           AND NOT late
         ORDER BY number DESC
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
