//! How long a transaction has been unproven since it expired, by the database's clock, and which ones are quarantined for it.
//!
//! Only time during which an endpoint answers counts. One clock runs for all of them, so that a tick writes one row however many
//! are unproven; it runs apart from the search, which may take minutes.

use std::time::Duration;

use sqlx::{FromRow, PgPool};

use crate::db::BigInt;
use crate::domain::{MintNumber, TxSignature};

/// What one tick adds at most: a process that was down or suspended has not searched meanwhile.
const TICK_MAX_MS: i64 = 30_000;
/// Quarantined in one round: the others follow in the next.
const OVERDUE_PER_ROUND: i64 = 1_000;

/// Whether time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    Answer,
    Silent,
}

/// A transaction that has been unproven for too long.
#[derive(Clone, Debug, FromRow)]
pub struct Overdue {
    pub number: MintNumber,
    pub signature: TxSignature,
    /// Why the last search for a proof did not complete.
    pub no_proof: Option<String>,
    /// The finalized block in which an endpoint showed the signature.
    pub found_in_slot: Option<i64>,
}

/// Adds the time since the last tick, if it counts: nothing where the database's clock was set back.
pub async fn tick(pool: &PgPool, endpoints: Endpoints) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE proof_clock
         SET answered_ms = answered_ms + CASE
                 WHEN $1 THEN GREATEST(0, LEAST((EXTRACT(EPOCH FROM now() - ticked_at) * 1000)::BIGINT, $2))
                 ELSE 0
             END,
             ticked_at = now()",
    )
    .bind(endpoints == Endpoints::Answer)
    .bind(TICK_MAX_MS)
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether the clock is needed: some transaction is late and not seen.
pub async fn is_needed(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT
             FROM late_transactions
             JOIN mint_transactions USING (number)
             WHERE state = 'recorded'
         )",
    )
    .fetch_one(pool)
    .await
}

/// Notes for those whose last valid height is below `height`, and that were not expired before, what the clock shows.
pub async fn note_expired(pool: &PgPool, height: u64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE late_transactions AS late
         SET expired_at = now(), expired_at_clock_ms = proof_clock.answered_ms
         FROM mint_transactions AS mint_transaction, proof_clock
         WHERE late.expired_at IS NULL
           AND mint_transaction.number = late.number
           AND mint_transaction.state IN ('recorded', 'quarantined')
           AND mint_transaction.last_valid_block_height < $1",
    )
    .bind(BigInt::from(height))
    .execute(pool)
    .await?;
    Ok(())
}

/// Those that are not quarantined yet and have been unproven for at least `limit`.
pub async fn overdue(pool: &PgPool, limit: Duration) -> sqlx::Result<Vec<Overdue>> {
    sqlx::query_as(
        "SELECT number, mint_transaction.signature, no_proof, found.slot AS found_in_slot
         FROM proof_clock, late_transactions
         JOIN mint_transactions AS mint_transaction USING (number)
         LEFT JOIN scanned_signatures AS found ON found.signature = mint_transaction.signature
         WHERE state = 'recorded'
           AND expired_at_clock_ms <= answered_ms - $1
         ORDER BY number
         LIMIT $2",
    )
    .bind(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
    .bind(OVERDUE_PER_ROUND)
    .fetch_all(pool)
    .await
}
