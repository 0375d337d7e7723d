//! An admin asks for a reading again: at once, with all its attempts, perhaps for another wallet.
//!
//! Invariant: only a reading that no live mint transaction pays is changed. Its row is locked and its state judged by the
//! machine, so whoever records it meanwhile is seen; and its revision rises, so whoever has packed it as it was must pack
//! again. Two wallets can never both be paid.

use std::str::FromStr;

use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

use super::LedgerError;
use crate::domain::{ReadingEvent, ReadingState, Wallet};
use crate::outbox::{self, MintReading, Topic};

/// Why a reading is not tried again.
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

/// Whether the reading could be retried now: a glance, before anybody takes pains.
pub async fn check_retryable(pool: &PgPool, reading: Uuid) -> Result<(), RetryError> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM readings WHERE id = $1")
        .bind(reading)
        .fetch_optional(pool)
        .await?;
    judge(reading, state).map(drop)
}

/// Makes the reading pending and due, with no attempt used, in the caller's transaction; a job of its own looks at it at
/// once. `wallet`: whom it pays from now on, unless that is left as it is. Returns the new state.
pub async fn retry_reading(
    transaction: &mut PgConnection,
    reading: Uuid,
    wallet: Option<Wallet>,
) -> Result<ReadingState, RetryError> {
    let state: Option<String> = sqlx::query_scalar(
        "SELECT state
         FROM readings
         WHERE id = $1
         -- Who records it waits for us, and then finds another revision.
         FOR UPDATE",
    )
    .bind(reading)
    .fetch_optional(&mut *transaction)
    .await?;
    let next = judge(reading, state)?;
    let revision: i64 = sqlx::query_scalar(
        "UPDATE readings
         SET state = $2, attempts = 0, next_attempt_at = now(), revision = revision + 1,
             -- What made it bad may have been the old wallet; without a new one it is still to be packed alone.
             pack_alone = pack_alone AND COALESCE($3, wallet) = wallet,
             wallet = COALESCE($3, wallet)
         WHERE id = $1
         RETURNING revision",
    )
    .bind(reading)
    .bind(next.as_str())
    .bind(wallet.map(|wallet| wallet.bytes().to_vec()))
    .fetch_one(&mut *transaction)
    .await?;
    let job = MintReading::because(reading, &format!("retry-{revision}"));
    outbox::enqueue(transaction, &[job]).await?;
    outbox::notify(transaction, Topic::OutboxAndJobs).await?;
    Ok(next)
}

/// The state that a retry leads to.
fn judge(reading: Uuid, stored: Option<String>) -> Result<ReadingState, RetryError> {
    let stored = stored.ok_or(RetryError::Unknown { reading })?;
    let state = ReadingState::from_str(&stored).map_err(|_| LedgerError::Unreadable {
        what: "a reading's state",
        value: stored,
    })?;
    state
        .next(ReadingEvent::Retried)
        .map_err(|_| RetryError::NotRetryable { reading, state })
}
