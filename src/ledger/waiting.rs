//! Stores on readings why they wait although nothing is wrong with them.

use sqlx::PgPool;
use uuid::Uuid;

/// Uses no attempt and changes no state.
pub async fn note_waiting(pool: &PgPool, readings: &[Uuid], reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE readings
         SET last_error = $2
         WHERE id = ANY($1)
           AND state = 'pending'
           AND last_error IS DISTINCT FROM $2",
    )
    .bind(readings)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}
