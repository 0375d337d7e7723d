//! Failed readings are tried again, many at once.

use sqlx::PgConnection;
use uuid::Uuid;

use super::guard::reading_guard;
use crate::domain::{ReadingEvent, ReadingState};

/// Makes those of these readings that are failed pending and due, with no attempt used, in the caller's transaction. Others
/// stay as they are. Whoever asks hands them on; if that is lost, a sweep finds them. Returns how many changed.
pub async fn retry_failed(transaction: &mut PgConnection, readings: &[Uuid]) -> sqlx::Result<u64> {
    let guard = reading_guard(ReadingEvent::Retried);
    let changed = sqlx::query(
        "UPDATE readings
         SET state = $2, attempts = 0, next_attempt_at = now(), revision = revision + 1
         WHERE id = ANY($1)
           AND state = ANY($3)
           -- A pending one may be retried too, but has attempts to count on.
           AND state = $4",
    )
    .bind(readings)
    .bind(guard.to)
    .bind(guard.from)
    .bind(ReadingState::Failed.as_str())
    .execute(transaction)
    .await?;
    Ok(changed.rows_affected())
}
