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
    let differences = rows
        .into_iter()
        .map(|(reading_id, signatures)| Difference::PaidTwice {
            reading_id,
            signatures,
        });
    Ok(differences.collect())
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
