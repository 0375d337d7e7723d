//! The ledger's transactions and readings, as the audit reads them.
//!
//! The audit has its own statements, which only read: an audit that called the ledger's code would inherit its mistakes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::total::Total;
use super::unreadable::{ReadingPart, UnreadableReading};
use crate::db::BigInt;
use crate::domain::{
    BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, MintNumber, MintTransactionState,
    ReadingState, TxSignature, Wallet,
};

/// A mint transaction with the readings that it pays.
#[derive(Clone, Debug)]
pub(super) struct LedgerTransaction {
    pub number: MintNumber,
    pub signature: TxSignature,
    pub state: MintTransactionState,
    /// `None` before it landed.
    pub slot: Option<u64>,
    pub base_units: BaseUnits,
    pub merkle_root: Hash32,
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

/// Whether a transaction in this state has landed according to the ledger.
pub(super) fn is_landed(state: MintTransactionState) -> bool {
    match state {
        MintTransactionState::Confirmed | MintTransactionState::Finalized => true,
        MintTransactionState::Recorded
        | MintTransactionState::Dead
        | MintTransactionState::Quarantined => false,
    }
}

/// A reading that a transaction pays.
#[derive(Clone, Debug)]
pub(super) struct LedgerReading {
    pub id: Uuid,
    pub state: ReadingState,
    /// Whether this transaction reserves the reading, so that no other one may pay it.
    pub live: bool,
    pub content: Result<ReadingContent, UnreadableReading>,
}

/// The values of a reading that its payment depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingContent {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub leaf_hash: Hash32,
}

/// Numbers of landed transactions after this one (`None`: from the first one), in order.
pub(super) async fn landed_after(
    pool: &PgPool,
    after: Option<MintNumber>,
    limit: u16,
) -> sqlx::Result<Vec<MintNumber>> {
    sqlx::query_scalar(
        "SELECT number
         FROM mint_transactions
         WHERE number > $1
           AND state IN ('confirmed', 'finalized')
         ORDER BY number
         LIMIT $2",
    )
    // Not zero: a negative number must fail to decode, not be skipped.
    .bind(after.map_or(i64::MIN, i64::from))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

#[derive(FromRow)]
struct TransactionRow {
    number: MintNumber,
    signature: TxSignature,
    state: MintTransactionState,
    slot: Option<BigInt>,
    base_units: BaseUnits,
    merkle_root: Hash32,
    live: Option<bool>,
    #[sqlx(flatten)]
    reading: ReadingRow,
}

/// All columns are NULL where a transaction has no readings.
#[derive(FromRow)]
struct ReadingRow {
    reading: Option<Uuid>,
    reading_state: Option<ReadingState>,
    interval_start: Option<DateTime<Utc>>,
    interval_end: Option<DateTime<Utc>>,
    /// Undecoded: an amount with too many digits is a difference of this reading, not an error of the audit.
    kwh: Option<Decimal>,
    reading_base_units: Option<BaseUnits>,
    wallet: Option<Wallet>,
    salt: Option<[u8; 16]>,
    serial: Option<MeterSerial>,
}

/// The current rows of these transactions, each with all its readings: one statement, so one snapshot.
pub(super) async fn transactions(
    pool: &PgPool,
    numbers: &[MintNumber],
) -> sqlx::Result<Vec<LedgerTransaction>> {
    let rows: Vec<TransactionRow> = sqlx::query_as(
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
                signature: row.signature,
                state: row.state,
                slot: row.slot.map(BigInt::get),
                base_units: row.base_units,
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
            state: self.reading_state?,
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
            .as_ref()
            .ok_or_else(|| missing(ReadingPart::Meter))?;
        let wallet = self.wallet.ok_or_else(|| missing(ReadingPart::Wallet))?;
        let leaf = Leaf {
            reading_id: self.reading.unwrap_or_default(),
            salt: self.salt.ok_or_else(|| missing(ReadingPart::Salt))?,
            interval: Interval::new(start, end)?,
            base_units,
            wallet,
            serial,
            kwh: Kwh::from_decimal(kwh)?,
        };
        Ok(ReadingContent {
            wallet,
            base_units,
            leaf_hash: leaf.hash(),
        })
    }
}

/// A transaction of the ledger by its number and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LedgerEntry {
    pub number: MintNumber,
    pub state: MintTransactionState,
}

/// The transactions among these signatures that the ledger has.
pub(super) async fn known_among(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashMap<TxSignature, LedgerEntry>> {
    let rows: Vec<(TxSignature, MintNumber, MintTransactionState)> = sqlx::query_as(
        "SELECT signature, number, state
         FROM mint_transactions
         WHERE signature = ANY($1)",
    )
    .bind(signatures)
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(signature, number, state)| (signature, LedgerEntry { number, state }))
        .collect())
}

/// The reasons of landed mints that an admin has booked without a reading, by signature in base58.
pub(super) async fn booked_foreign(pool: &PgPool) -> sqlx::Result<HashMap<String, String>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT signature, booked_reason
         FROM foreign_mints
         WHERE booked_reason IS NOT NULL",
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
}
