//! Contradictions within the ledger, found by SQL alone.

use sqlx::PgPool;
use uuid::Uuid;

use super::difference::Difference;
use super::report::Outstanding;
use super::total::Total;
use crate::db::BigInt;
use crate::domain::{BaseUnits, MintTransactionState, ReadingState, TxSignature};

/// Rows of one kind of difference that are fetched: further ones would not be listed.
const ROWS_MAX: i64 = 2_000;

/// Readings with more than one landed transaction. `landed_against_the_ledger` are transactions that landed although the
/// ledger says otherwise.
pub(super) async fn paid_twice(
    pool: &PgPool,
    landed_against_the_ledger: &[i64],
) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, Vec<TxSignature>)> = sqlx::query_as(
        "SELECT link.reading, array_agg(mint_transaction.signature ORDER BY mint_transaction.number)
         FROM mint_transaction_readings AS link
         JOIN mint_transactions AS mint_transaction ON mint_transaction.number = link.transaction
         WHERE mint_transaction.state IN ('confirmed', 'finalized')
            OR mint_transaction.number = ANY($1)
         GROUP BY link.reading
         HAVING count(*) > 1
         ORDER BY link.reading
         LIMIT $2",
    )
    .bind(landed_against_the_ledger)
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(difference).collect())
}

fn difference((reading_id, signatures): (Uuid, Vec<TxSignature>)) -> Difference {
    Difference::PaidTwice {
        reading_id,
        signatures,
    }
}

/// Like [`paid_twice`], for readings of landed transactions above a number or with one of these: against everything. Of two links
/// of one reading at most one is live, so the other one is in the small index of those that are not.
pub(super) async fn paid_twice_of_new(
    pool: &PgPool,
    above: i64,
    numbers: &[i64],
    landed_against_the_ledger: &[i64],
) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, Vec<TxSignature>)> = sqlx::query_as(
        "WITH fresh AS (
             SELECT link.reading, link.live, mint_transaction.number, mint_transaction.signature
             FROM mint_transactions AS mint_transaction
             JOIN mint_transaction_readings AS link ON link.transaction = mint_transaction.number
             WHERE (mint_transaction.number > $1 OR mint_transaction.number = ANY($2))
               AND (mint_transaction.state IN ('confirmed', 'finalized') OR mint_transaction.number = ANY($3))
         ), twice AS (
             SELECT fresh.reading, fresh.signature, other.transaction
             FROM fresh
             JOIN mint_transaction_readings AS other
               ON other.reading = fresh.reading
              AND NOT other.live
              AND other.transaction <> fresh.number
             UNION ALL
             SELECT fresh.reading, fresh.signature, other.transaction
             FROM fresh
             JOIN mint_transaction_readings AS other
               ON other.reading = fresh.reading
              AND other.live
              AND other.transaction <> fresh.number
             WHERE NOT fresh.live
         )
         SELECT twice.reading, array_agg(DISTINCT both_paid.signature)
         FROM twice
         JOIN mint_transactions AS other ON other.number = twice.transaction
         CROSS JOIN LATERAL (VALUES (twice.signature), (other.signature)) AS both_paid (signature)
         WHERE other.state IN ('confirmed', 'finalized')
            OR other.number = ANY($3)
         GROUP BY twice.reading
         ORDER BY twice.reading
         LIMIT $4",
    )
    .bind(above)
    .bind(numbers)
    .bind(landed_against_the_ledger)
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(difference).collect())
}

/// Whether as many readings are minted or finalized as landed transactions pay: those of `covered` readings, and the new ones. One
/// statement, so one snapshot: the ledger changes all of it in one transaction.
pub(super) async fn counts_agree(
    pool: &PgPool,
    covered: u64,
    above: i64,
    numbers: &[i64],
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT (
                    SELECT COALESCE(sum(counted.readings), 0)
                    FROM (
                        SELECT state, readings FROM reading_counts
                        UNION ALL
                        SELECT state, change FROM reading_count_changes
                    ) AS counted
                    WHERE counted.state IN ('minted', 'finalized')
                ) = $1 + (
                    SELECT count(*)
                    FROM mint_transactions AS mint_transaction
                    JOIN mint_transaction_readings AS link ON link.transaction = mint_transaction.number
                    WHERE (mint_transaction.number > $2 OR mint_transaction.number = ANY($3))
                      AND mint_transaction.state IN ('confirmed', 'finalized')
                )",
    )
    .bind(BigInt::from(covered))
    .bind(above)
    .bind(numbers)
    .fetch_one(pool)
    .await
}

/// Readings that are minted or finalized, without a landed transaction.
pub(super) async fn not_paid(pool: &PgPool) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, ReadingState, BaseUnits)> = sqlx::query_as(
        "SELECT reading.id, reading.state, reading.base_units
         FROM readings AS reading
         WHERE reading.state IN ('minted', 'finalized')
           AND NOT EXISTS (
               SELECT
               FROM mint_transaction_readings AS link
               JOIN mint_transactions AS mint_transaction ON mint_transaction.number = link.transaction
               WHERE link.reading = reading.id
                 AND mint_transaction.state IN ('confirmed', 'finalized')
           )
         ORDER BY reading.id
         LIMIT $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    let differences = rows
        .into_iter()
        .map(|(reading_id, state, base_units)| Difference::NotPaid {
            reading_id,
            state,
            base_units,
        });
    Ok(differences.collect())
}

/// A reading's id and state, and the signature and state of the live transaction that reserves it.
type ReservedReading = (
    Uuid,
    ReadingState,
    Option<TxSignature>,
    Option<MintTransactionState>,
);

/// Unminted readings whose state contradicts the transaction that reserves them, or that wait for a transaction that does not
/// exist. One statement, so one snapshot: the ledger changes both in one transaction. Landed transactions are compared with
/// the chain instead.
pub(super) async fn contradicting(pool: &PgPool) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<ReservedReading> = sqlx::query_as(
        "SELECT reading.id, reading.state, mint_transaction.signature, mint_transaction.state
         FROM readings AS reading
         LEFT JOIN mint_transaction_readings AS link
           ON link.reading = reading.id
          AND link.live
         LEFT JOIN mint_transactions AS mint_transaction ON mint_transaction.number = link.transaction
         WHERE reading.state IN ('pending', 'submitted', 'failed', 'quarantined')
           AND CASE
                   WHEN mint_transaction.state IS NULL THEN reading.state IN ('submitted', 'quarantined')
                   WHEN mint_transaction.state = 'recorded' THEN reading.state <> 'submitted'
                   WHEN mint_transaction.state = 'quarantined' THEN reading.state <> 'quarantined'
                   ELSE mint_transaction.state = 'dead'
               END
         ORDER BY reading.id
         LIMIT $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    let differences = rows
        .into_iter()
        .map(|(reading_id, state, signature, transaction_state)| {
            match (signature, transaction_state) {
                (Some(signature), Some(transaction_state)) => Difference::WrongState {
                    reading_id,
                    signature,
                    state: state.to_string(),
                    transaction_state,
                },
                _ => Difference::Stranded { reading_id, state },
            }
        });
    Ok(differences.collect())
}

/// Readings that the ledger has released although their transaction may still land; it may release only after a proof of
/// death.
pub(super) async fn released(pool: &PgPool) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, TxSignature)> = sqlx::query_as(
        "SELECT link.reading, mint_transaction.signature
         FROM mint_transactions AS mint_transaction
         JOIN mint_transaction_readings AS link ON link.transaction = mint_transaction.number
         WHERE mint_transaction.state IN ('recorded', 'quarantined')
           AND NOT link.live
         ORDER BY link.reading
         LIMIT $1",
    )
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    let differences = rows
        .into_iter()
        .map(|(reading_id, signature)| Difference::Released {
            reading_id,
            signature,
        });
    Ok(differences.collect())
}

/// Accepted readings that are not minted yet, failed ones included.
pub(super) async fn outstanding(pool: &PgPool) -> sqlx::Result<Outstanding> {
    let (readings, base_units): (BigInt, Total) = sqlx::query_as(
        "SELECT count(*), COALESCE(sum(base_units), 0)
         FROM readings
         WHERE state IN ('pending', 'submitted', 'failed', 'quarantined')",
    )
    .fetch_one(pool)
    .await?;
    Ok(Outstanding {
        readings: readings.get(),
        base_units,
    })
}
