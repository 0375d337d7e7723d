//! The ledger's transactions and readings, as the audit reads them.
//!
//! The audit has its own statements, which only read: an audit that called the ledger's code would inherit its mistakes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use solana_sdk::signature::Signature;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::decode::{signature, state, unreadable};
use super::error::AuditError;
use super::total::Total;
use super::unreadable::{ReadingPart, UnreadableReading};
use crate::domain::{
    BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, MintTransactionState, Wallet,
};

/// A mint transaction with the readings that it pays.
#[derive(Clone, Debug)]
pub(super) struct LedgerTransaction {
    pub number: i64,
    pub signature: Signature,
    pub state: MintTransactionState,
    /// `None` before it landed.
    pub slot: Option<u64>,
    pub base_units: BaseUnits,
    pub merkle_root: Vec<u8>,
    /// Ordered by id.
    pub readings: Vec<LedgerReading>,
}

impl LedgerTransaction {
    /// Whether it has landed according to the ledger.
    pub fn landed(&self) -> bool {
        is_landed(self.state)
    }

    /// The worth of its readings; one that cannot be read counts as zero.
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
pub(super) struct LedgerReading {
    pub id: Uuid,
    pub state: String,
    /// Whether this transaction reserves the reading, so that no other one may pay it.
    pub live: bool,
    pub content: Result<ReadingContent, UnreadableReading>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingContent {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub leaf_hash: Hash32,
}

/// Numbers of landed transactions after `number`, in order.
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

/// All columns are NULL where a transaction has no readings.
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

/// The current rows of these transactions, each with all its readings: one statement, so one snapshot.
pub(super) async fn transactions(
    pool: &PgPool,
    numbers: &[i64],
) -> Result<Vec<LedgerTransaction>, AuditError> {
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
    let mut transactions: Vec<LedgerTransaction> = Vec::with_capacity(numbers.len());
    for row in rows {
        let reading = row.reading.into_reading(row.live.unwrap_or_default());
        match transactions.last_mut() {
            Some(last) if last.number == row.number => last.readings.extend(reading),
            _ => transactions.push(LedgerTransaction {
                number: row.number,
                signature: signature(&row.signature)?,
                state: state(&row.state)?,
                slot: row.slot.map(i64::unsigned_abs),
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
    fn into_reading(self, live: bool) -> Option<LedgerReading> {
        Some(LedgerReading {
            id: self.reading?,
            state: self.reading_state.clone().unwrap_or_default(),
            live,
            content: self.content(),
        })
    }

    fn content(&self) -> Result<ReadingContent, UnreadableReading> {
        let missing = |part| UnreadableReading::Missing(part);
        let start = self
            .interval_start
            .ok_or_else(|| missing(ReadingPart::Start))?;
        let end = self.interval_end.ok_or_else(|| missing(ReadingPart::End))?;
        let kwh = self.kwh.ok_or_else(|| missing(ReadingPart::Energy))?;
        let base_units = self
            .reading_base_units
            .ok_or_else(|| missing(ReadingPart::Amount))?;
        let serial = self
            .serial
            .clone()
            .ok_or_else(|| missing(ReadingPart::Meter))?;
        let wallet = self
            .wallet
            .as_deref()
            .and_then(|bytes| bytes.try_into().ok());
        let wallet = Wallet::from_stored(wallet.ok_or_else(|| missing(ReadingPart::Wallet))?);
        let salt = self.salt.as_deref().and_then(|bytes| bytes.try_into().ok());
        let base_units = BaseUnits::from_decimal(base_units)?;
        let leaf = Leaf {
            reading_id: self.reading.unwrap_or_default(),
            salt: salt.ok_or_else(|| missing(ReadingPart::Salt))?,
            interval: Interval::new(start, end)?,
            base_units,
            wallet,
            serial: &MeterSerial::from_stored(serial),
            kwh: Kwh::from_decimal(kwh)?,
        };
        Ok(ReadingContent {
            wallet,
            base_units,
            leaf_hash: leaf.hash(),
        })
    }
}

/// Number and state of each of these signatures that the ledger has.
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

/// The reasons of landed mints that an admin has booked without a reading, by signature.
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
