//! Record before send: rule 1 of the ledger.
//!
//! Invariant: bytes leave this process only after the row that holds them is known to be committed. When the answer to
//! COMMIT is lost the bytes are dropped unsent; the row is there or not, and the Resolver finds out.

use std::time::Duration;

use solana_sdk::signature::Signature;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use thiserror::Error;
use uuid::Uuid;

use super::breaker::{self, SigningRefused};
use super::guard::reading_guard;
use super::transition_metrics;
use crate::chain::RecentBlockhash;
use crate::db::{GuardedConnection, timed_out, within};
use crate::domain::{BaseUnits, ReadingEvent};

/// A signed transaction that is not known to anybody yet.
#[derive(Clone, Debug)]
pub struct NewMintTransaction {
    /// 48 bits, from [`reserve_numbers`]; in the memo.
    pub number: u64,
    pub signature: Signature,
    /// The signed bytes.
    pub signed_bytes: Vec<u8>,
    pub merkle_root: [u8; 32],
    pub base_units: BaseUnits,
    pub blockhash: RecentBlockhash,
    /// Name of the endpoint that gave the blockhash and gets the first send.
    pub endpoint: String,
    pub account_creations: u32,
    /// For signatures and priority: what the chain takes, to the lamport.
    pub fee_lamports: u64,
    /// The priority fee's part of it.
    pub priority_fee_lamports: u64,
    /// The readings that it pays, as they were when it was packed.
    pub readings: Vec<PackedReading>,
}

/// A reading and the revision that was packed: recorded only if nothing changed meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct PackedReading {
    pub id: Uuid,
    pub revision: i64,
}

/// Why a transaction was not recorded. In every case its bytes must not be sent.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Some reading is no longer what was packed: another worker was faster, or an admin changed it. Pack again.
    #[error("a packed reading changed before its mint transaction was recorded")]
    Stale,
    /// The ledger breaker is open, or this database is not the one that the ledger knows.
    #[error(transparent)]
    Refused(#[from] SigningRefused),
    /// Nothing was written.
    #[error("the mint transaction was not recorded: {0}")]
    NotRecorded(sqlx::Error),
    /// The answer to COMMIT was lost: the row may be there.
    #[error("it is unknown whether the mint transaction was recorded: {0}")]
    Unknown(sqlx::Error),
}

/// Takes `count` numbers for mint transactions; a number that is not used leaves a hole, which harms nobody.
pub async fn reserve_numbers(pool: &PgPool, count: u64) -> sqlx::Result<u64> {
    let first: i64 = sqlx::query_scalar(
        "UPDATE ledger
         SET next_number = next_number + $1
         RETURNING next_number - $1",
    )
    .bind(count as i64)
    .fetch_one(pool)
    .await?;
    Ok(first as u64)
}

/// Whether signing is refused now: asked before the work of a batch, which [`record`] would throw away.
pub async fn may_sign(pool: &PgPool) -> Result<(), RecordError> {
    let mut transaction = pool.begin().await.map_err(RecordError::NotRecorded)?;
    let checked = breaker::check_may_sign(&mut transaction).await;
    drop(transaction);
    match checked {
        Ok(()) => Ok(()),
        Err(refused) => Err(refusal(pool, refused).await),
    }
}

/// A changed identity opens the breaker for all processes.
async fn refusal(pool: &PgPool, refused: SigningRefused) -> RecordError {
    if matches!(refused, SigningRefused::IdentityChanged)
        && let Err(error) = breaker::open_if_identity_changed(pool).await
    {
        return RecordError::NotRecorded(error);
    }
    refused.into()
}

/// Stores the transaction and turns its readings to `submitted`, all or nothing. `Ok` means: committed, send it.
///
/// `limit` is that of the transaction and again that of its COMMIT: a session that falls silent must not hold up its caller
/// for ever. Past it the bytes are dropped, like those of an answer that was lost.
pub async fn record(
    pool: &PgPool,
    limit: Duration,
    new: &NewMintTransaction,
) -> Result<(), RecordError> {
    let mut connection = GuardedConnection::acquire(pool)
        .await
        .map_err(RecordError::NotRecorded)?;
    let recorded = record_on(&mut connection, limit, new).await;
    match recorded {
        Ok(()) => {
            connection.reuse();
            transition_metrics::count_transactions("recorded", 1);
            crate::failpoint!("ledger.recorded");
            Ok(())
        }
        Err(RecordError::Refused(refused)) => {
            connection.reuse();
            Err(refusal(pool, refused).await)
        }
        Err(error) => {
            // A session that did not answer may be hung: it is closed.
            if !matches!(error, RecordError::NotRecorded(_) | RecordError::Unknown(_)) {
                connection.reuse();
            }
            Err(error)
        }
    }
}

async fn record_on(
    connection: &mut PgConnection,
    limit: Duration,
    new: &NewMintTransaction,
) -> Result<(), RecordError> {
    let transaction = tokio::time::timeout(limit, write(connection, new))
        .await
        .unwrap_or_else(|_| Err(RecordError::NotRecorded(timed_out(limit))))?;
    crate::failpoint!("ledger.before_record_commit");
    within(limit, transaction.commit())
        .await
        .map_err(RecordError::Unknown)
}

/// Everything but the COMMIT.
async fn write<'c>(
    connection: &'c mut PgConnection,
    new: &NewMintTransaction,
) -> Result<Transaction<'c, Postgres>, RecordError> {
    let mut transaction = connection.begin().await.map_err(RecordError::NotRecorded)?;
    // Shares the breaker's row until commit: whoever opens the breaker waits for us, whoever comes later sees it open.
    breaker::check_may_sign(&mut transaction).await?;
    let submitted = store(&mut transaction, new)
        .await
        .map_err(stale_or_failed)?;
    if submitted != new.readings.len() as u64 {
        return Err(RecordError::Stale);
    }
    Ok(transaction)
}

/// The unique index `live_mint_of_reading` speaks: the reading has a live mint transaction.
fn stale_or_failed(error: sqlx::Error) -> RecordError {
    match error.as_database_error() {
        Some(database) if database.constraint() == Some("live_mint_of_reading") => {
            RecordError::Stale
        }
        _ => RecordError::NotRecorded(error),
    }
}

/// Stores it and turns its readings to `submitted`, whether anything may be signed or not. Returns the readings that were as
/// they were packed.
pub(super) async fn store(
    transaction: &mut PgConnection,
    new: &NewMintTransaction,
) -> sqlx::Result<u64> {
    insert(transaction, new).await?;
    submit_readings(transaction, new).await
}

async fn insert(transaction: &mut PgConnection, new: &NewMintTransaction) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO mint_transactions
             (number, signature, wire, merkle_root, base_units, blockhash, blockhash_slot,
              last_valid_block_height, endpoint, account_creations, fee_lamports,
              priority_fee_lamports)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(new.number as i64)
    .bind(new.signature.as_ref())
    .bind(&new.signed_bytes)
    .bind(new.merkle_root.as_slice())
    .bind(new.base_units.to_decimal())
    .bind(new.blockhash.hash.to_string())
    .bind(new.blockhash.slot as i64)
    .bind(new.blockhash.last_valid_block_height as i64)
    .bind(&new.endpoint)
    .bind(new.account_creations as i32)
    .bind(new.fee_lamports as i64)
    .bind(new.priority_fee_lamports as i64)
    .execute(&mut *transaction)
    .await?;
    let readings: Vec<Uuid> = new.readings.iter().map(|reading| reading.id).collect();
    sqlx::query(
        "INSERT INTO mint_transaction_readings (transaction, reading)
         SELECT $1, reading
         FROM UNNEST($2::UUID[]) AS packed (reading)
         -- One order for all writers: rivals for the same readings wait for each other at the first, not in a circle.
         ORDER BY reading",
    )
    .bind(new.number as i64)
    .bind(readings)
    .execute(transaction)
    .await?;
    Ok(())
}

async fn submit_readings(
    transaction: &mut PgConnection,
    new: &NewMintTransaction,
) -> sqlx::Result<u64> {
    let guard = reading_guard(ReadingEvent::Recorded);
    let ids: Vec<Uuid> = new.readings.iter().map(|reading| reading.id).collect();
    let revisions: Vec<i64> = new
        .readings
        .iter()
        .map(|reading| reading.revision)
        .collect();
    let updated = sqlx::query(
        "UPDATE readings AS reading
         SET state = $3, revision = reading.revision + 1,
             -- Without an attempt it only told why the reading waited, which is over.
             last_error = CASE WHEN reading.attempts > 0 THEN reading.last_error END
         FROM UNNEST($1::UUID[], $2::BIGINT[]) AS packed (id, revision)
         WHERE reading.id = packed.id
           AND reading.revision = packed.revision
           AND reading.state = ANY($4)",
    )
    .bind(ids)
    .bind(revisions)
    .bind(guard.to)
    .bind(guard.from)
    .execute(transaction)
    .await?;
    Ok(updated.rows_affected())
}
