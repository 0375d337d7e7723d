//! Transactions that mention the authority and are not mints of ours: each is read once.
//!
//! Invariant: one that is stored without a problem was read at finalized commitment and minted nothing by our authority. One that
//! no endpoint shows in a form that this program can read is stored with its problem; it holds the watermark below its slot, and
//! is queried ever more rarely, whether it is listed again or not. It is removed only once every endpoint has answered several times
//! in a row that it has no such transaction.

use std::collections::HashSet;

use sqlx::PgPool;

use crate::chain::ListedTransaction;
use crate::db::BigInt;
use crate::domain::TxSignature;

/// Unreadable transactions that a scan reads again besides those that it lists; the others follow in the next scan.
const DUE_AT_ONCE: i64 = 16;
/// An unreadable transaction of which every endpoint has said so often in a row, at growing intervals, that it does not exist, is
/// removed: over a minute passes until then, in which a node that catches up shows it.
const ABSENCES: i32 = 5;

/// Of these, the ones that need not be read now: read before, or unreadable and not due again. Notes that the unreadable ones are
/// still listed.
pub(super) async fn not_due(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashSet<TxSignature>> {
    sqlx::query(
        "UPDATE history_transactions
         SET absences = 0
         WHERE signature = ANY($1)
           AND problem IS NOT NULL
           AND absences > 0",
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
        "INSERT INTO history_transactions (signature, slot, problem, next_read_at)
         VALUES ($1, $2, $3, now() + INTERVAL '4 seconds')
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

/// Unreadable ones that are due, the oldest first, whether a scan lists them or not.
pub(super) async fn due(pool: &PgPool) -> sqlx::Result<Vec<ListedTransaction>> {
    let due: Vec<(TxSignature, BigInt)> = sqlx::query_as(
        "SELECT signature, slot
         FROM history_transactions
         WHERE problem IS NOT NULL
           AND next_read_at <= now()
         ORDER BY slot, signature
         LIMIT $1",
    )
    .bind(DUE_AT_ONCE)
    .fetch_all(pool)
    .await?;
    let listed = due.into_iter().map(|(signature, slot)| ListedTransaction {
        signature,
        slot: slot.get(),
        failed: false,
        memo: None,
    });
    Ok(listed.collect())
}

/// Every endpoint answered that it has no such transaction, or one did not. After several such reads in a row it is removed.
pub(super) async fn note_absence(
    pool: &PgPool,
    signature: TxSignature,
    is_absent: bool,
) -> sqlx::Result<()> {
    let absences: Option<i32> = sqlx::query_scalar(
        "UPDATE history_transactions
         SET absences = CASE WHEN $2 THEN absences + 1 ELSE 0 END
         WHERE signature = $1
           AND problem IS NOT NULL
         RETURNING absences",
    )
    .bind(signature)
    .bind(is_absent)
    .fetch_optional(pool)
    .await?;
    if absences.is_some_and(|absences| absences >= ABSENCES) {
        tracing::warn!(%signature, "no endpoint has this unreadable transaction any more: it holds the watermark no longer");
        forget(pool, &[signature]).await?;
    }
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
