//! Rows of the ledger that only an incremental audit reads.

use std::collections::HashMap;

use sqlx::PgPool;

use super::error::AuditError;
use super::report::ForeignMint;
use super::total::Total;
use crate::db::BigInt;

/// The signed bytes of these transactions, by number.
pub(super) async fn signed_bytes(
    pool: &PgPool,
    numbers: &[i64],
) -> sqlx::Result<HashMap<i64, Vec<u8>>> {
    let rows: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT number, wire FROM mint_transactions WHERE number = ANY($1)")
            .bind(numbers)
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Finalized transactions at random up to this number, at most so many, each once.
pub(super) async fn random_finalized(
    pool: &PgPool,
    through: i64,
    count: u32,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "SELECT DISTINCT picked.number
         FROM (
             SELECT range.first + floor(random() * ($1 - range.first + 1))::BIGINT AS at
             FROM (SELECT min(number) AS first FROM mint_transactions WHERE number <= $1) AS range
             CROSS JOIN generate_series(1, $2)
         ) AS point
         -- From a random point on: the primary key finds it, however many there are.
         CROSS JOIN LATERAL (
             SELECT number
             FROM mint_transactions
             WHERE number >= point.at
               AND number <= $1
               AND state = 'finalized'
             ORDER BY number
             LIMIT 1
         ) AS picked",
    )
    .bind(through)
    .bind(i64::from(count))
    .fetch_all(pool)
    .await
}

/// Booked foreign mints up to this slot.
pub(super) async fn foreign_up_to(
    pool: &PgPool,
    slot: u64,
) -> Result<Vec<ForeignMint>, AuditError> {
    let rows: Vec<(String, BigInt, Total, Option<String>, String)> = sqlx::query_as(
        "SELECT signature, slot, base_units, memo, booked_reason
         FROM foreign_mints
         WHERE booked_reason IS NOT NULL
           AND slot <= $1
         ORDER BY slot, signature",
    )
    .bind(BigInt::from(slot))
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(signature, slot, base_units, memo, booked_reason)| {
            Ok(ForeignMint {
                signature: signature.parse().map_err(|_| AuditError::Unreadable {
                    column: "signature".to_owned(),
                    reason: format!("{signature} is not a signature"),
                })?,
                slot: slot.get(),
                base_units,
                memo,
                booked_reason,
            })
        })
        .collect()
}
