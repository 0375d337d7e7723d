//! An admin retries readings: at once, with all their attempts, perhaps for another wallet.
//!
//! Invariant: only a reading that no live mint transaction pays is changed. Its row is locked and its state goes through the
//! state machine, so a transaction that records it meanwhile is seen. Its revision rises, so a batch that packed it before must
//! pack again. Two wallets can never both be paid.

use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

use crate::domain::{ReadingEvent, ReadingState, Wallet};
use crate::ledger::error::LedgerError;
use crate::ledger::guard::reading_guard;
use crate::outbox::{self, MintReading, Topic};

/// The reason for which a reading is not retried.
#[derive(Debug, Error)]
pub enum RetryError {
    #[error("reading {reading} is not known; check the reading_id")]
    Unknown { reading: Uuid },
    #[error("reading {reading} is {state}; only a failed or a pending reading can be retried")]
    NotRetryable { reading: Uuid, state: ReadingState },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for RetryError {
    fn from(error: sqlx::Error) -> RetryError {
        RetryError::Ledger(error.into())
    }
}

/// Checks whether the reading could be retried now, before the caller does more expensive checks.
pub async fn check_retryable(pool: &PgPool, reading: Uuid) -> Result<(), RetryError> {
    let state: Option<ReadingState> =
        sqlx::query_scalar("SELECT state FROM readings WHERE id = $1")
            .bind(reading)
            .fetch_optional(pool)
            .await?;
    next_state(reading, state).map(drop)
}

/// Makes the reading pending and due, with no attempt used, in the caller's transaction, and enqueues its own job, which runs at
/// once. `wallet`: the one to pay from now on; `None` keeps the present one. Returns the new state.
pub async fn retry_reading(
    transaction: &mut PgConnection,
    reading: Uuid,
    wallet: Option<Wallet>,
) -> Result<ReadingState, RetryError> {
    let state: Option<ReadingState> = sqlx::query_scalar(
        "SELECT state
         FROM readings
         WHERE id = $1
         -- A transaction that records it waits for this one, and then finds another revision.
         FOR UPDATE",
    )
    .bind(reading)
    .fetch_optional(&mut *transaction)
    .await?;
    let next = next_state(reading, state)?;
    let revision: i64 = sqlx::query_scalar(
        "UPDATE readings
         SET state = $2, attempts = 0, next_attempt_at = now(), revision = revision + 1,
             -- The old wallet may have been the reason for the refusal; without a new one it is still packed alone.
             pack_alone = pack_alone AND COALESCE($3, wallet) = wallet,
             wallet = COALESCE($3, wallet)
         WHERE id = $1
         RETURNING revision",
    )
    .bind(reading)
    .bind(next)
    .bind(wallet)
    .fetch_one(&mut *transaction)
    .await?;
    let job = MintReading::because(reading, &format!("retry-{revision}"));
    outbox::enqueue(transaction, &[job]).await?;
    outbox::notify(transaction, Topic::OutboxAndJobs).await?;
    Ok(next)
}

/// The state that a retry leads to.
fn next_state(reading: Uuid, stored: Option<ReadingState>) -> Result<ReadingState, RetryError> {
    let state = stored.ok_or(RetryError::Unknown { reading })?;
    state
        .next(ReadingEvent::Retried)
        .map_err(|_| RetryError::NotRetryable { reading, state })
}

/// Makes those of these readings that are failed pending and due, with no attempt used, in the caller's transaction. Others
/// stay as they are. The caller enqueues their jobs; a sweep finds readings whose job is lost. Returns how many changed.
pub async fn retry_failed(transaction: &mut PgConnection, readings: &[Uuid]) -> sqlx::Result<u64> {
    let guard = reading_guard(ReadingEvent::Retried);
    let changed = sqlx::query(
        "UPDATE readings
         SET state = $2, attempts = 0, next_attempt_at = now(), revision = revision + 1
         WHERE id = ANY($1)
           AND state = ANY($3)
           -- A pending reading may be retried too, but keeps its attempts here.
           AND state = $4",
    )
    .bind(readings)
    .bind(guard.to)
    .bind(guard.from)
    .bind(ReadingState::Failed)
    .execute(transaction)
    .await?;
    Ok(changed.rows_affected())
}
