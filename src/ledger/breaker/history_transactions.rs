//! Transactions that mention the authority and are not mints of ours: each is read once.
//!
//! Invariant: one that is stored without a problem was read at finalized commitment and minted nothing by our authority. One that
//! no endpoint shows in a form that this program can read is stored with its problem; it holds the watermark below its slot, and
//! is queried ever more rarely.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::chain::ListedTransaction;
use crate::db::BigInt;
use crate::domain::TxSignature;

/// Of these, the ones that need not be read now: read before, or unreadable and not due again. Notes that the unreadable ones are
/// still listed.
pub(super) async fn not_due(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashSet<TxSignature>> {
    sqlx::query(
        "UPDATE history_transactions
         SET listed_at = clock_timestamp()
         WHERE signature = ANY($1)
           AND problem IS NOT NULL",
    )
    .bind(signatures)
    .execute(pool)
    .await?;
    let stored: Vec<TxSignature> = sqlx::query_scalar(
        "SELECT signature
         FROM history_transactions
         WHERE signature = ANY($1)
           AND (problem IS NULL OR next_read_at > now())",
    )
    .bind(signatures)
    .fetch_all(pool)
    .await?;
    Ok(stored.into_iter().collect())
}

/// They were read, and minted nothing of ours.
pub(super) async fn store_read(pool: &PgPool, read: &[ListedTransaction]) -> sqlx::Result<()> {
    let (signatures, slots) = columns(read.iter());
    sqlx::query(
        "INSERT INTO history_transactions (signature, slot)
         SELECT signature, slot
         FROM UNNEST($1::BYTEA[], $2::BIGINT[]) AS read (signature, slot)
         ON CONFLICT (signature) DO UPDATE
         SET slot = EXCLUDED.slot, problem = NULL, next_read_at = NULL, reads = history_transactions.reads + 1",
    )
    .bind(signatures)
    .bind(slots)
    .execute(pool)
    .await?;
    Ok(())
}

/// No endpoint shows it in a form that this program can read: queried again after 4 s, 8 s, … 10 minutes.
pub(super) async fn store_unreadable(
    pool: &PgPool,
    transaction: &ListedTransaction,
    problem: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO history_transactions (signature, slot, problem, next_read_at, listed_at)
         VALUES ($1, $2, $3, now() + INTERVAL '4 seconds', clock_timestamp())
         ON CONFLICT (signature) DO UPDATE
         SET problem = EXCLUDED.problem, slot = EXCLUDED.slot, reads = history_transactions.reads + 1,
             next_read_at = now() + LEAST(
                 -- The exponent is bounded, so that the interval is.
                 INTERVAL '4 seconds' * 2 ^ LEAST(history_transactions.reads, 10),
                 INTERVAL '10 minutes'
             )",
    )
    .bind(transaction.signature)
    .bind(BigInt::from(transaction.slot))
    .bind(problem)
    .execute(pool)
    .await?;
    Ok(())
}

/// They turned out to be mints of ours, which are stored elsewhere.
pub(super) async fn forget(pool: &PgPool, signatures: &[TxSignature]) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM history_transactions WHERE signature = ANY($1)")
        .bind(signatures)
        .execute(pool)
        .await?;
    Ok(())
}

fn columns<'a>(
    transactions: impl Iterator<Item = &'a ListedTransaction>,
) -> (Vec<TxSignature>, Vec<BigInt>) {
    transactions
        .map(|transaction| (transaction.signature, BigInt::from(transaction.slot)))
        .unzip()
}
