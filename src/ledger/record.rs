//! Record before send: rule 1 of the ledger.
//!
//! Invariant: bytes leave this process only after the row that holds them is known to be committed. When the answer to
//! COMMIT is lost, the bytes are dropped unsent; the row exists or not, and the resolver finds out.

use std::time::Duration;

use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use thiserror::Error;
use uuid::Uuid;

use super::breaker::opening::open_if_identity_changed;
use super::breaker::scan_request::ScanRequest;
use super::breaker::signing::{scan_pending, signing_refusal};
use super::guard::reading_guard;
use super::transition_metrics::{self, TransactionOutcome};
use crate::chain::RecentBlockhash;
use crate::db::{self, BigInt, GuardedConnection, timed_out, within};
use crate::domain::{BaseUnits, Hash32, MintNumber, ReadingEvent, SigningRefused, TxSignature};

/// A signed transaction that has not left this process.
#[derive(Clone, Debug)]
pub struct NewMintTransaction {
    /// From [`reserve_numbers`]; in the memo.
    pub number: MintNumber,
    pub signature: TxSignature,
    pub signed_bytes: Vec<u8>,
    pub merkle_root: Hash32,
    pub base_units: BaseUnits,
    pub blockhash: RecentBlockhash,
    /// Name of the endpoint that returned the blockhash and gets the first send.
    pub endpoint: String,
    pub account_creations: u32,
    /// For signatures and priority: what the chain will charge.
    pub fee_lamports: u64,
    /// The priority fee's part of it.
    pub priority_fee_lamports: u64,
    /// Of each token account that it creates, as the chain reported it last.
    pub token_account_rent_lamports: u64,
    /// The readings that it pays, as they were when it was packed.
    pub readings: Vec<PackedReading>,
}

/// A reading and the revision that was packed: it is recorded only if nothing changed since.
#[derive(Clone, Copy, Debug)]
pub struct PackedReading {
    pub id: Uuid,
    pub revision: i64,
}

/// The reason for which a transaction was not recorded. In every case its bytes must not be sent.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Some reading is no longer what was packed: another worker recorded it first, or an admin changed it. Pack again.
    #[error("a packed reading changed before its mint transaction was recorded")]
    Stale,
    /// The ledger breaker is open, or this database is not the one that the ledger knows.
    #[error(transparent)]
    Refused(#[from] SigningRefused),
    /// Nothing was written.
    #[error("whether signing is allowed could not be read: {0}")]
    PermissionUnknown(sqlx::Error),
    /// Nothing was written.
    #[error("the mint transaction was not recorded: {0}")]
    NotRecorded(sqlx::Error),
    /// The answer to COMMIT was lost: the row may exist.
    #[error("it is unknown whether the mint transaction was recorded: {0}")]
    Unknown(sqlx::Error),
}

/// Reserves `count` numbers for mint transactions. A number that is not used leaves a gap, which is harmless.
pub async fn reserve_numbers(pool: &PgPool, count: usize) -> sqlx::Result<Vec<MintNumber>> {
    let first: MintNumber = sqlx::query_scalar(
        "UPDATE ledger
         SET next_number = next_number + $1
         RETURNING next_number - $1",
    )
    .bind(BigInt::from(count))
    .fetch_one(pool)
    .await?;
    Ok(std::iter::successors(Some(first), |number| number.next())
        .take(count)
        .collect())
}

/// Checks whether signing is refused now, before a batch does work that [`record`] would throw away. `scan_request`: of this
/// process, when it bound the ledger ([`bind`](super::bind)); once a scan covers it, that stays true, so [`record`] need not
/// check it again.
pub async fn may_sign(pool: &PgPool, scan_request: Option<ScanRequest>) -> Result<(), RecordError> {
    let mut transaction = db::begin(pool).await.map_err(RecordError::NotRecorded)?;
    let mut checked = check_may_sign(&mut transaction).await;
    drop(transaction);
    if let (Ok(()), Some(request)) = (&checked, scan_request) {
        checked = match scan_pending(pool, request).await {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err(RecordError::Refused(refused)),
            Err(error) => Err(RecordError::PermissionUnknown(error)),
        };
    }
    match checked {
        Err(RecordError::Refused(refused)) => Err(handle_refusal(pool, refused).await),
        checked => checked,
    }
}

async fn check_may_sign(transaction: &mut PgConnection) -> Result<(), RecordError> {
    match signing_refusal(transaction).await {
        Ok(None) => Ok(()),
        Ok(Some(refused)) => Err(RecordError::Refused(refused)),
        Err(error) => Err(RecordError::PermissionUnknown(error)),
    }
}

/// A changed identity opens the breaker for all processes.
async fn handle_refusal(pool: &PgPool, refused: SigningRefused) -> RecordError {
    if refused == SigningRefused::IdentityChanged
        && let Err(error) = open_if_identity_changed(pool).await
    {
        return RecordError::NotRecorded(error);
    }
    refused.into()
}

/// Stores the transaction and turns its readings to `submitted`, all or nothing. `Ok` means: committed, send it.
///
/// `limit` bounds the transaction, and again its COMMIT, so that a session that stops answering cannot block its caller
/// indefinitely. Past it the bytes are dropped, as when an answer is lost.
pub async fn record(
    pool: &PgPool,
    limit: Duration,
    new: &NewMintTransaction,
) -> Result<(), RecordError> {
    let mut connection = GuardedConnection::acquire(pool)
        .await
        .map_err(RecordError::NotRecorded)?;
    match record_on(&mut connection, limit, new).await {
        Ok(()) => {
            connection.reuse();
            transition_metrics::count_transactions(TransactionOutcome::Recorded, 1);
            crate::failpoint!("ledger.recorded");
            Ok(())
        }
        Err(RecordError::Refused(refused)) => {
            // Returned first: opening the breaker takes a connection from the pool.
            connection.reuse();
            Err(handle_refusal(pool, refused).await)
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

/// Everything up to the COMMIT.
async fn write<'c>(
    connection: &'c mut PgConnection,
    new: &NewMintTransaction,
) -> Result<Transaction<'c, Postgres>, RecordError> {
    let mut transaction = connection.begin().await.map_err(RecordError::NotRecorded)?;
    // Shares the breaker's row until commit: a process that opens the breaker waits for this transaction, and a later one
    // reads the breaker open.
    check_may_sign(&mut transaction).await?;
    match store(&mut transaction, new).await {
        Ok(StoreOutcome::Stored) => Ok(transaction),
        Ok(StoreOutcome::Stale) => Err(RecordError::Stale),
        Err(error) => Err(stale_or_failed(error)),
    }
}

/// A violation of the unique index `live_mint_of_reading` means that the reading has a live mint transaction.
fn stale_or_failed(error: sqlx::Error) -> RecordError {
    match error.as_database_error() {
        Some(database) if database.constraint() == Some("live_mint_of_reading") => {
            RecordError::Stale
        }
        _ => RecordError::NotRecorded(error),
    }
}

/// Whether every reading was still as it was packed.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    Stored,
    /// The caller rolls back.
    Stale,
}

/// Stores the transaction and turns its readings to `submitted`, whether signing is allowed or not.
pub async fn store(
    transaction: &mut PgConnection,
    new: &NewMintTransaction,
) -> sqlx::Result<StoreOutcome> {
    insert(transaction, new).await?;
    let submitted = submit_readings(transaction, new).await?;
    if usize::try_from(submitted) == Ok(new.readings.len()) {
        Ok(StoreOutcome::Stored)
    } else {
        Ok(StoreOutcome::Stale)
    }
}

async fn insert(transaction: &mut PgConnection, new: &NewMintTransaction) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO mint_transactions
             (number, signature, wire, merkle_root, base_units, blockhash, blockhash_slot,
              last_valid_block_height, endpoint, account_creations, fee_lamports,
              priority_fee_lamports, token_account_rent_lamports)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(new.number)
    .bind(new.signature)
    .bind(&new.signed_bytes)
    .bind(new.merkle_root)
    .bind(new.base_units)
    .bind(new.blockhash.hash.to_string())
    .bind(BigInt::from(new.blockhash.slot))
    .bind(BigInt::from(new.blockhash.last_valid_block_height))
    .bind(&new.endpoint)
    // At most one for each payment of a transaction, which has at most 4,096 bytes.
    .bind(new.account_creations.cast_signed())
    .bind(BigInt::from(new.fee_lamports))
    .bind(BigInt::from(new.priority_fee_lamports))
    .bind(BigInt::from(new.token_account_rent_lamports))
    .execute(&mut *transaction)
    .await?;
    let readings: Vec<Uuid> = new.readings.iter().map(|reading| reading.id).collect();
    sqlx::query(
        "INSERT INTO mint_transaction_readings (transaction, reading)
         SELECT $1, reading
         FROM UNNEST($2::UUID[]) AS packed (reading)
         -- One order for all writers: rivals for the same readings wait for each other at the first one and never deadlock.
         ORDER BY reading",
    )
    .bind(new.number)
    .bind(readings)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Returns how many readings were still as they were packed.
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
             -- Without an attempt it only said why the reading waited, which is over.
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
