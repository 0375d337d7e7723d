//! What the ledger says: the statements of the audit. They only read, and they read the tables themselves: an auditor that
//! asked the ledger's own code would inherit its mistakes.

use std::collections::HashMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use solana_sdk::signature::Signature;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::AuditError;
use super::difference::Difference;
use super::report::{Outstanding, Total};
use crate::domain::{
    BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, MintTransactionState, ReadingState, Wallet,
};

/// A mint transaction with the readings that it pays.
#[derive(Clone, Debug)]
pub(super) struct BookedTransaction {
    pub number: i64,
    pub signature: Signature,
    pub state: MintTransactionState,
    /// `None` before it landed.
    pub slot: Option<u64>,
    pub base_units: BaseUnits,
    pub merkle_root: Vec<u8>,
    /// Ordered by id.
    pub readings: Vec<BookedReading>,
}

impl BookedTransaction {
    /// Whether the ledger calls it landed.
    pub fn landed(&self) -> bool {
        is_landed(self.state)
    }

    /// What its readings are worth; one that cannot be read is worth nothing.
    pub fn worth(&self) -> Total {
        self.readings
            .iter()
            .filter_map(|reading| reading.content.as_ref().ok())
            .map(|content| Total::from(content.base_units))
            .sum()
    }
}

pub(super) fn is_landed(state: MintTransactionState) -> bool {
    match state {
        MintTransactionState::Confirmed | MintTransactionState::Finalized => true,
        MintTransactionState::Recorded
        | MintTransactionState::Dead
        | MintTransactionState::Quarantined => false,
    }
}

#[derive(Clone, Debug)]
pub(super) struct BookedReading {
    pub id: Uuid,
    pub state: String,
    /// Whether the ledger keeps others from paying it.
    pub live: bool,
    /// Or why it cannot be what it was when it was paid.
    pub content: Result<ReadingContent, String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingContent {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub leaf_hash: Hash32,
}

/// Numbers of landed transactions after this one, in order.
pub(super) async fn landed_after(pool: &PgPool, number: i64, limit: i64) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "SELECT number
         FROM mint_transactions
         WHERE number > $1
           AND state IN ('confirmed', 'finalized')
         ORDER BY number
         LIMIT $2",
    )
    .bind(number)
    .bind(limit)
    .fetch_all(pool)
    .await
}

#[derive(FromRow)]
struct Row {
    number: i64,
    signature: Vec<u8>,
    state: String,
    slot: Option<i64>,
    base_units: Decimal,
    merkle_root: Vec<u8>,
    live: Option<bool>,
    #[sqlx(flatten)]
    reading: ReadingRow,
}

/// All of it is missing where a transaction has no readings.
#[derive(FromRow)]
struct ReadingRow {
    reading: Option<Uuid>,
    reading_state: Option<String>,
    interval_start: Option<DateTime<Utc>>,
    interval_end: Option<DateTime<Utc>>,
    kwh: Option<Decimal>,
    reading_base_units: Option<Decimal>,
    wallet: Option<Vec<u8>>,
    salt: Option<Vec<u8>>,
    serial: Option<String>,
}

/// These transactions as they are now, each with all its readings: one statement, so one snapshot.
pub(super) async fn transactions(
    pool: &PgPool,
    numbers: &[i64],
) -> Result<Vec<BookedTransaction>, AuditError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT mint_transaction.number, mint_transaction.signature, mint_transaction.state,
                mint_transaction.slot, mint_transaction.base_units, mint_transaction.merkle_root,
                link.live, reading.id AS reading, reading.state AS reading_state,
                reading.interval_start, reading.interval_end, reading.kwh,
                reading.base_units AS reading_base_units, reading.wallet, reading.salt, meter.serial
         FROM mint_transactions AS mint_transaction
         LEFT JOIN mint_transaction_readings AS link ON link.transaction = mint_transaction.number
         LEFT JOIN readings AS reading ON reading.id = link.reading
         LEFT JOIN meters AS meter ON meter.id = reading.meter
         WHERE mint_transaction.number = ANY($1)
         ORDER BY mint_transaction.number, reading.id",
    )
    .bind(numbers)
    .fetch_all(pool)
    .await?;
    let mut transactions: Vec<BookedTransaction> = Vec::with_capacity(numbers.len());
    for row in rows {
        let reading = row.reading.read(row.live.unwrap_or_default());
        match transactions.last_mut() {
            Some(last) if last.number == row.number => last.readings.extend(reading),
            _ => transactions.push(BookedTransaction {
                number: row.number,
                signature: signature(&row.signature)?,
                state: state(&row.state)?,
                slot: row.slot.map(|slot| slot as u64),
                base_units: BaseUnits::from_decimal(row.base_units)
                    .map_err(|_| unreadable("an amount", &row.base_units))?,
                merkle_root: row.merkle_root,
                readings: reading.into_iter().collect(),
            }),
        }
    }
    Ok(transactions)
}

impl ReadingRow {
    fn read(self, live: bool) -> Option<BookedReading> {
        Some(BookedReading {
            id: self.reading?,
            state: self.reading_state.clone().unwrap_or_default(),
            live,
            content: self.content(),
        })
    }

    fn content(&self) -> Result<ReadingContent, String> {
        let missing = |what: &str| format!("its {what} is missing");
        let start = self.interval_start.ok_or_else(|| missing("start"))?;
        let end = self.interval_end.ok_or_else(|| missing("end"))?;
        let kwh = self.kwh.ok_or_else(|| missing("energy"))?;
        let base_units = self.reading_base_units.ok_or_else(|| missing("amount"))?;
        let serial = self.serial.clone().ok_or_else(|| missing("meter"))?;
        let wallet = self
            .wallet
            .as_deref()
            .and_then(|bytes| bytes.try_into().ok());
        let wallet = Wallet::from_stored(wallet.ok_or_else(|| missing("wallet"))?);
        let salt = self.salt.as_deref().and_then(|bytes| bytes.try_into().ok());
        let base_units = BaseUnits::from_decimal(base_units).map_err(|error| error.to_string())?;
        let leaf = Leaf {
            reading_id: self.reading.unwrap_or_default(),
            salt: salt.ok_or_else(|| missing("salt"))?,
            interval: Interval::new(start, end).map_err(|error| error.to_string())?,
            base_units,
            wallet,
            serial: &MeterSerial::from_stored(serial),
            kwh: Kwh::from_decimal(kwh).map_err(|error| error.to_string())?,
        };
        Ok(ReadingContent {
            wallet,
            base_units,
            leaf_hash: leaf.hash(),
        })
    }
}

/// What the ledger holds of these signatures: number and state of each that it knows.
pub(super) async fn known_among(
    pool: &PgPool,
    signatures: &[Signature],
) -> Result<HashMap<Signature, (i64, MintTransactionState)>, AuditError> {
    let bytes: Vec<&[u8]> = signatures.iter().map(AsRef::as_ref).collect();
    let rows: Vec<(Vec<u8>, i64, String)> = sqlx::query_as(
        "SELECT signature, number, state
         FROM mint_transactions
         WHERE signature = ANY($1)",
    )
    .bind(bytes)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|(bytes, number, text)| Ok((signature(bytes)?, (*number, state(text)?))))
        .collect()
}

/// The landed mints that an admin has booked without a reading, by signature.
pub(super) async fn booked_foreign(pool: &PgPool) -> Result<HashMap<String, String>, AuditError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT signature, booked_reason
         FROM foreign_mints
         WHERE booked_reason IS NOT NULL",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Readings with more than one landed transaction; those that are dead here but landed on chain are counted in.
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

/// Readings that are called minted or finalized, without a landed transaction.
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

/// A reading's id and state, and the signature and state of the live transaction that holds it.
type HeldReading = (Uuid, String, Option<Vec<u8>>, Option<String>);

/// Unminted readings whose state contradicts the transaction that holds them, or that wait for one which is not there. One
/// statement, so one snapshot: the ledger changes both in one transaction. What landed is compared with the chain instead.
pub(super) async fn contradicting(pool: &PgPool) -> Result<Vec<Difference>, AuditError> {
    let rows: Vec<HeldReading> = sqlx::query_as(
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

/// Readings that the ledger has released though their transaction may still land; it releases what is dead alone.
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

/// Accepted and not minted yet, failed ones included.
pub(super) async fn outstanding(pool: &PgPool) -> Result<Outstanding, AuditError> {
    let (readings, base_units): (i64, Decimal) = sqlx::query_as(
        "SELECT count(*), COALESCE(sum(base_units), 0)
         FROM readings
         WHERE state IN ('pending', 'submitted', 'failed', 'quarantined')",
    )
    .fetch_one(pool)
    .await?;
    Ok(Outstanding {
        readings: readings as u64,
        base_units: base_units
            .to_u128()
            .map(Total::new)
            .ok_or_else(|| unreadable("a sum", &base_units))?,
    })
}

/// Rows of one kind of difference that are fetched: more would not be listed.
const ROWS_MAX: i64 = 2_000;

fn signature(bytes: &[u8]) -> Result<Signature, AuditError> {
    Signature::try_from(bytes)
        .map_err(|_| unreadable("a signature of another length", &bytes.len()))
}

fn state(text: &str) -> Result<MintTransactionState, AuditError> {
    MintTransactionState::from_str(text)
        .map_err(|_| unreadable("a mint transaction's state", &text))
}

fn unreadable(what: &'static str, value: &dyn std::fmt::Display) -> AuditError {
    AuditError::Unreadable {
        what,
        value: value.to_string(),
    }
}
