//! Contradictions within the ledger, found by SQL alone.

use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use sqlx::PgPool;
use uuid::Uuid;

use super::decode::{signature, state, unreadable};
use super::difference::Difference;
use super::error::AuditError;
use super::report::Outstanding;
use super::total::Total;
use crate::domain::{BaseUnits, ReadingState};

/// Rows of one kind of difference that are fetched: further ones would not be listed.
const ROWS_MAX: i64 = 2_000;

/// Readings with more than one landed transaction. `landed_against_the_ledger` are transactions that landed although the
/// ledger says otherwise.
pub(super) async fn paid_twice(
    pool: &PgPool,
    landed_against_the_ledger: &[i64],
) -> Result<Vec<Difference>, AuditError> {
    let rows: Vec<(Uuid, Vec<Vec<u8>>)> = sqlx::query_as(
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
    rows.into_iter()
        .map(|(reading_id, signatures)| {
            let signatures = signatures
                .iter()
                .map(|bytes| Ok(signature(bytes)?.to_string()))
                .collect::<Result<_, AuditError>>()?;
            Ok(Difference::PaidTwice {
                reading_id,
                signatures,
            })
        })
        .collect()
}

/// Readings that are minted or finalized, without a landed transaction.
pub(super) async fn not_paid(pool: &PgPool) -> Result<Vec<Difference>, AuditError> {
    let rows: Vec<(Uuid, String, Decimal)> = sqlx::query_as(
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
    rows.into_iter()
        .map(|(reading_id, state, base_units)| {
            Ok(Difference::NotPaid {
                reading_id,
                state: ReadingState::from_str(&state)
                    .map_err(|_| unreadable("a reading's state", &state))?,
                base_units: BaseUnits::from_decimal(base_units)
                    .map_err(|_| unreadable("an amount", &base_units))?,
            })
        })
        .collect()
}

/// A reading's id and state, and the signature and state of the live transaction that reserves it.
type ReservedReading = (Uuid, String, Option<Vec<u8>>, Option<String>);

/// Unminted readings whose state contradicts the transaction that reserves them, or that wait for a transaction that does not
/// exist. One statement, so one snapshot: the ledger changes both in one transaction. Landed transactions are compared with
/// the chain instead.
pub(super) async fn contradicting(pool: &PgPool) -> Result<Vec<Difference>, AuditError> {
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
    rows.into_iter()
        .map(|(reading_id, reading_state, bytes, transaction_state)| {
            Ok(match (bytes, transaction_state) {
                (Some(bytes), Some(text)) => Difference::WrongState {
                    reading_id,
                    signature: signature(&bytes)?,
                    state: reading_state,
                    transaction_state: state(&text)?,
                },
                _ => Difference::Stranded {
                    reading_id,
                    state: ReadingState::from_str(&reading_state)
                        .map_err(|_| unreadable("a reading's state", &reading_state))?,
                },
            })
        })
        .collect()
}

/// Readings that the ledger has released although their transaction may still land; it may release only after a proof of
/// death.
pub(super) async fn released(pool: &PgPool) -> Result<Vec<Difference>, AuditError> {
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
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
    rows.into_iter()
        .map(|(reading_id, bytes)| {
            Ok(Difference::Released {
                reading_id,
                signature: signature(&bytes)?,
            })
        })
        .collect()
}

/// Accepted readings that are not minted yet, failed ones included.
pub(super) async fn outstanding(pool: &PgPool) -> Result<Outstanding, AuditError> {
    let (readings, base_units): (i64, Decimal) = sqlx::query_as(
        "SELECT count(*), COALESCE(sum(base_units), 0)
         FROM readings
         WHERE state IN ('pending', 'submitted', 'failed', 'quarantined')",
    )
    .fetch_one(pool)
    .await?;
    Ok(Outstanding {
        readings: readings.unsigned_abs(),
        base_units: base_units
            .to_u128()
            .map(Total::new)
            .ok_or_else(|| unreadable("a sum", &base_units))?,
    })
}
