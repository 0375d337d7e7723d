//! Landed mints of our authority that the ledger lacks, or holds as dead: stored, announced, and never forgotten until a
//! person has dealt with each.

use rust_decimal::Decimal;
use sqlx::{PgConnection, PgPool};

use super::LedgerError;
use super::breaker::{self, Breaker, LedgerRow};
use crate::chain::ChainMint;

/// Stores these mints, opens the breaker for them, and keeps our numbers above theirs. What the ledger has come to know
/// meanwhile is left out. `last_possible_height`: up to there may land what was signed before now. Returns how many are new.
pub(super) async fn book_foreign(
    pool: &PgPool,
    found: &[ChainMint],
    last_possible_height: u64,
) -> Result<u64, LedgerError> {
    let mut transaction = pool.begin().await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    let new = insert(&mut transaction, found).await?;
    raise_next_number(&mut transaction, found).await?;
    open_breaker(&mut transaction, &row, new, last_possible_height).await?;
    transaction.commit().await?;
    Ok(new)
}

/// Opens the breaker when some foreign mint is not dealt with and the breaker does not say so.
pub(super) async fn open_for_unresolved(
    pool: &PgPool,
    last_possible_height: u64,
) -> Result<(), LedgerError> {
    let unresolved: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM foreign_mints WHERE booked_reason IS NULL)")
            .fetch_one(pool)
            .await?;
    if !unresolved {
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    open_breaker(&mut transaction, &row, 0, last_possible_height).await?;
    transaction.commit().await?;
    Ok(())
}

async fn insert(transaction: &mut PgConnection, found: &[ChainMint]) -> Result<u64, LedgerError> {
    let texts: Vec<String> = found
        .iter()
        .map(|mint| mint.signature.to_string())
        .collect();
    let bytes: Vec<&[u8]> = found.iter().map(|mint| mint.signature.as_ref()).collect();
    let slots: Vec<i64> = found.iter().map(|mint| mint.slot as i64).collect();
    let memos: Vec<Option<&str>> = found.iter().map(|mint| mint.raw_memo.as_deref()).collect();
    let base_units = found
        .iter()
        .map(base_units_of)
        .collect::<Result<Vec<Decimal>, LedgerError>>()?;
    let inserted = sqlx::query(
        "INSERT INTO foreign_mints (signature, slot, base_units, memo)
         SELECT found.text, found.slot, found.base_units, found.memo
         FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::NUMERIC[], $5::TEXT[])
           AS found (text, bytes, slot, base_units, memo)
         -- Looked up again: what was recorded since the first look is ours.
         WHERE NOT EXISTS (
             SELECT FROM mint_transactions
             WHERE signature = found.bytes
               AND state <> 'dead'
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(texts)
    .bind(bytes)
    .bind(slots)
    .bind(base_units)
    .bind(memos)
    .execute(transaction)
    .await?;
    Ok(inserted.rows_affected())
}

fn base_units_of(mint: &ChainMint) -> Result<Decimal, LedgerError> {
    mint.base_units()
        .map(|sum| sum.to_decimal())
        .ok_or_else(|| LedgerError::Unreadable {
            what: "a mint of more than 64 bits",
            value: mint.signature.to_string(),
        })
}

/// Only memos of our mint by our authority count: two deployments may share an authority, never a mint.
async fn raise_next_number(
    transaction: &mut PgConnection,
    found: &[ChainMint],
) -> sqlx::Result<()> {
    let numbers = found.iter().filter_map(|mint| mint.memo);
    let Some(highest) = numbers.map(|memo| memo.number()).max() else {
        return Ok(());
    };
    sqlx::query(
        "UPDATE ledger
         -- The column's own limit: a memo may hold the largest number there is.
         SET next_number = GREATEST(next_number, LEAST($1 + 1, 281474976710655))",
    )
    .bind(highest as i64)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Announced when it opens, and again for each batch of new ones while it is open. The height that a changed database set
/// stays in force.
async fn open_breaker(
    transaction: &mut PgConnection,
    row: &LedgerRow,
    new: u64,
    last_possible_height: u64,
) -> Result<(), LedgerError> {
    let (unresolved, newest): (i64, Option<String>) = sqlx::query_as(
        "SELECT count(*), (array_agg(signature ORDER BY slot DESC))[1]
         FROM foreign_mints
         WHERE booked_reason IS NULL",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let Some(newest) = newest else {
        return Ok(());
    };
    if row.breaker == Breaker::Mismatch && new == 0 {
        return Ok(());
    }
    let reason = format!(
        "LedgerMismatch: landed mints of our authority that the ledger lacks or holds as dead: {unresolved}, the newest \
         {newest}; nothing is signed until an admin has dealt with each"
    );
    sqlx::query(
        "UPDATE ledger
         SET breaker = $1, breaker_reason = $2,
             breaker_opened_at = CASE WHEN breaker = 'closed' THEN now() ELSE breaker_opened_at END,
             breaker_closes_after_height = CASE WHEN breaker = 'identity'
                                                THEN COALESCE(breaker_closes_after_height, $3)
                                                ELSE breaker_closes_after_height END",
    )
    .bind(Breaker::Mismatch.as_str())
    .bind(&reason)
    .bind(last_possible_height as i64)
    .execute(&mut *transaction)
    .await?;
    breaker::announce(transaction, &reason, Some(&newest)).await?;
    tracing::error!(reason, "the ledger breaker is open");
    Ok(())
}
