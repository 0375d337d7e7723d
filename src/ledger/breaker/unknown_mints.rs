//! Landed mints of our authority that the ledger lacks, or holds as dead. They are stored and reported to admins, and each stays
//! unresolved until a person has adopted it or booked it without a reading. The table calls them foreign mints.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};

use super::ledger_row::LedgerRow;
use super::opening::open_for_mismatch;
use crate::chain::ChainMint;
use crate::db::{self, BigInt};
use crate::domain::{BaseUnits, MintNumber, TxSignature};
use crate::ledger::error::LedgerError;

/// Of these, the signatures that are in the ledger and may land, or that are stored among the unknown mints.
pub async fn known_among(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashSet<TxSignature>> {
    let texts: Vec<String> = signatures.iter().map(ToString::to_string).collect();
    let known: Vec<TxSignature> = sqlx::query_scalar(
        "SELECT signature
         FROM mint_transactions
         WHERE signature = ANY($1)
           AND state <> 'dead'
         UNION ALL
         SELECT listed.bytes
         FROM UNNEST($1, $2::TEXT[]) AS listed (bytes, text)
         JOIN foreign_mints ON foreign_mints.signature = listed.text",
    )
    .bind(signatures)
    .bind(texts)
    .fetch_all(pool)
    .await?;
    Ok(known.into_iter().collect())
}

/// Stores these mints, opens the breaker for them, and keeps the ledger's next number above theirs. Mints that the ledger knows
/// by now are left out. `last_possible_height`: a transaction that was signed before now may land up to there. Returns how many
/// are new.
pub async fn store_unknown_mints(
    pool: &PgPool,
    found: &[ChainMint],
    last_possible_height: u64,
) -> Result<u64, LedgerError> {
    let mut transaction = db::begin(pool).await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    let new = insert(&mut transaction, found).await?;
    // Only memos of our mint by our authority count: two deployments may share an authority, never a mint.
    let numbers = found.iter().filter_map(|mint| mint.memo);
    if let Some(highest) = numbers.map(|memo| memo.number()).max() {
        raise_next_number(&mut transaction, highest).await?;
    }
    open_for_mismatch(&mut transaction, &row, new, last_possible_height).await?;
    transaction.commit().await?;
    Ok(new)
}

/// Stores those that the ledger does not know. Returns how many are new.
pub async fn insert(
    transaction: &mut PgConnection,
    found: &[ChainMint],
) -> Result<u64, LedgerError> {
    let texts: Vec<String> = found
        .iter()
        .map(|mint| mint.signature.to_string())
        .collect();
    let signatures: Vec<TxSignature> = found.iter().map(|mint| mint.signature).collect();
    let slots: Vec<BigInt> = found.iter().map(|mint| mint.slot.into()).collect();
    let memos: Vec<Option<&str>> = found.iter().map(|mint| mint.raw_memo.as_deref()).collect();
    let base_units = found
        .iter()
        .map(base_units_of)
        .collect::<Result<Vec<BaseUnits>, LedgerError>>()?;
    let inserted = sqlx::query(
        "INSERT INTO foreign_mints (signature, slot, base_units, memo)
         SELECT found.text, found.slot, found.base_units, found.memo
         FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::NUMERIC[], $5::TEXT[])
           AS found (text, bytes, slot, base_units, memo)
         -- Compared again: what was recorded since the first comparison is ours.
         WHERE NOT EXISTS (
             SELECT FROM mint_transactions
             WHERE signature = found.bytes
               AND state <> 'dead'
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(texts)
    .bind(signatures)
    .bind(slots)
    .bind(base_units)
    .bind(memos)
    .execute(transaction)
    .await?;
    Ok(inserted.rows_affected())
}

fn base_units_of(mint: &ChainMint) -> Result<BaseUnits, LedgerError> {
    mint.base_units().ok_or_else(|| LedgerError::Unreadable {
        what: "a mint of more than 64 bits",
        value: mint.signature.to_string(),
    })
}

/// Keeps the ledger's next number above this one.
pub async fn raise_next_number(
    transaction: &mut PgConnection,
    highest: MintNumber,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         -- The column's own limit: a memo may hold the largest number there is.
         SET next_number = GREATEST(next_number, LEAST($1 + 1, 281474976710655))",
    )
    .bind(highest)
    .execute(transaction)
    .await?;
    Ok(())
}
