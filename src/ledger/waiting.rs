//! Stores on readings why they wait although nothing is wrong with them.

use sqlx::PgPool;
use thiserror::Error;
use uuid::Uuid;

/// The reason for which a reading waits although nothing is wrong with it, as its owner and admins read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WaitingReason {
    #[error(
        "the fee payer's balance does not cover the {rent_lamports} lamports of rent for the wallet's new \
         token account: it waits for a top-up, and no attempt is used"
    )]
    NoRent { rent_lamports: u64 },
}

/// Uses no attempt and changes no state.
pub async fn note_waiting(
    pool: &PgPool,
    readings: &[Uuid],
    reason: WaitingReason,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE readings
         SET last_error = $2
         WHERE id = ANY($1)
           AND state = 'pending'
           AND last_error IS DISTINCT FROM $2",
    )
    .bind(readings)
    .bind(reason.to_string())
    .execute(pool)
    .await?;
    Ok(())
}
