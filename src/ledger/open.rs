//! The transactions that are not at their end: the Resolver's work list.

use std::str::FromStr;

use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::LedgerError;
use super::transitions::{signature_text, wallet_of};
use crate::domain::{MintTransactionState, Wallet};

/// A recorded, confirmed or quarantined mint transaction.
#[derive(Clone, Debug)]
pub struct OpenTransaction {
    pub number: i64,
    /// Base58.
    pub signature: String,
    pub state: MintTransactionState,
    pub blockhash_slot: u64,
    pub last_valid_block_height: u64,
    pub endpoint: String,
    /// Milliseconds since it was recorded, by the database's clock.
    pub age_ms: i64,
    pub unproven_secs: i64,
}

#[derive(FromRow)]
struct Row {
    number: i64,
    signature: Vec<u8>,
    state: String,
    blockhash_slot: i64,
    last_valid_block_height: i64,
    endpoint: String,
    age_ms: i64,
    unproven_secs: i64,
}

/// Bounds the memory of one round; what is beyond waits for those before it to end.
const OPEN_PER_ROUND: i64 = 10_000;

/// All that are open, oldest number first.
pub async fn open_transactions(pool: &PgPool) -> Result<Vec<OpenTransaction>, LedgerError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT number, signature, state, blockhash_slot, last_valid_block_height, endpoint, unproven_secs,
                (EXTRACT(EPOCH FROM now() - recorded_at) * 1000)::BIGINT AS age_ms
         FROM mint_transactions
         WHERE state IN ('recorded', 'confirmed', 'quarantined')
         ORDER BY number
         LIMIT $1",
    )
    .bind(OPEN_PER_ROUND)
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(OpenTransaction::try_from).collect()
}

/// How many are open.
pub async fn count_open_transactions(pool: &PgPool) -> sqlx::Result<u64> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*)
         FROM mint_transactions
         WHERE state IN ('recorded', 'confirmed', 'quarantined')",
    )
    .fetch_one(pool)
    .await?;
    Ok(count.unsigned_abs())
}

impl TryFrom<Row> for OpenTransaction {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<OpenTransaction, LedgerError> {
        let state =
            MintTransactionState::from_str(&row.state).map_err(|_| LedgerError::Unreadable {
                what: "a mint transaction's state",
                value: row.state.clone(),
            })?;
        let signature = signature_text(&row.signature).ok_or_else(|| LedgerError::Unreadable {
            what: "a signature of another length",
            value: row.signature.len().to_string(),
        })?;
        Ok(OpenTransaction {
            number: row.number,
            signature,
            state,
            blockhash_slot: row.blockhash_slot as u64,
            last_valid_block_height: row.last_valid_block_height as u64,
            endpoint: row.endpoint,
            age_ms: row.age_ms,
            unproven_secs: row.unproven_secs,
        })
    }
}

/// The signed bytes of these transactions, by number.
pub async fn signed_bytes(pool: &PgPool, numbers: &[i64]) -> sqlx::Result<Vec<(i64, Vec<u8>)>> {
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

/// Notes that these bytes were sent (again).
pub async fn note_sends(pool: &PgPool, numbers: &[i64]) -> sqlx::Result<()> {
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

/// Adds time that passed without proof while an endpoint answered.
pub async fn add_unproven_secs(pool: &PgPool, numbers: &[i64], secs: i64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE mint_transactions
         SET unproven_secs = unproven_secs + $2
         WHERE number = ANY($1)",
    )
    .bind(numbers)
    .bind(secs)
    .execute(pool)
    .await?;
    Ok(())
}

/// The readings that a transaction pays, with their wallets.
pub async fn readings_of(pool: &PgPool, number: i64) -> Result<Vec<(Uuid, Wallet)>, LedgerError> {
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT reading.id, reading.wallet
         FROM mint_transaction_readings AS link
         JOIN readings AS reading ON reading.id = link.reading
         WHERE link.transaction = $1",
    )
    .bind(number)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(id, wallet)| Ok((id, wallet_of(&wallet)?)))
        .collect()
}
