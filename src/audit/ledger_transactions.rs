//! The ledger's transactions and readings, as the audit reads them.
//!
//! The audit has its own statements, which only read: an audit that called the ledger's code would inherit its mistakes.
//!
//! Invariant: a row that was tampered with is a difference, and does not end the audit. So rows are decoded into what their
//! columns can hold, with or without the schema's constraints, and not into the domain's types, which refuse it: a reading that
//! does not convert is unreadable, and any other value differs from what the chain has.
//!
//! A reading's NUMERIC columns are read as text, since they may hold what [`Decimal`] cannot represent, such as `NaN`. Only a
//! transaction's own signature, state or amount ends the audit with an error: without them it cannot be compared.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::total::Total;
use super::unreadable::{ReadingPart, UnreadableReading};
use crate::domain::{
    BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, MintTransactionState, TxSignature, Wallet,
};

/// A mint transaction with the readings that it pays.
#[derive(Clone, Debug)]
pub(super) struct LedgerTransaction {
    /// Any number of the column, not only one that a memo can carry.
    pub number: i64,
    pub signature: TxSignature,
    pub state: MintTransactionState,
    /// `None` before it landed.
    pub slot: Option<u64>,
    pub base_units: BaseUnits,
    /// Of any length.
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
    /// Any text of the column, not only a reading's state.
    pub state: String,
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

/// Numbers of landed transactions from this one on, in order.
pub(super) async fn landed_from(pool: &PgPool, first: i64, limit: u16) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "SELECT number
         FROM mint_transactions
         WHERE number >= $1
           AND state IN ('confirmed', 'finalized')
         ORDER BY number
         LIMIT $2",
    )
    .bind(first)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

#[derive(FromRow)]
struct TransactionRow {
    number: i64,
    signature: TxSignature,
    state: MintTransactionState,
    slot: Option<i64>,
    base_units: BaseUnits,
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
    kwh: Option<String>,
    reading_base_units: Option<String>,
    wallet: Option<Vec<u8>>,
    salt: Option<Vec<u8>>,
    serial: Option<MeterSerial>,
}

/// The current rows of these transactions, each with all its readings: one statement, so one snapshot.
pub(super) async fn transactions(
    pool: &PgPool,
    numbers: &[i64],
) -> sqlx::Result<Vec<LedgerTransaction>> {
    let rows: Vec<TransactionRow> = sqlx::query_as(
        "SELECT mint_transaction.number, mint_transaction.signature, mint_transaction.state,
                mint_transaction.slot, mint_transaction.base_units, mint_transaction.merkle_root,
                link.live, reading.id AS reading, reading.state AS reading_state,
                reading.interval_start, reading.interval_end, reading.kwh::TEXT AS kwh,
                reading.base_units::TEXT AS reading_base_units, reading.wallet, reading.salt, meter.serial
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
    Ok(grouped(rows))
}

/// One transaction from all its rows, which follow each other.
fn grouped(rows: Vec<TransactionRow>) -> Vec<LedgerTransaction> {
    let mut transactions: Vec<LedgerTransaction> = Vec::new();
    for row in rows {
        let reading = row.reading.into_reading(row.live.unwrap_or_default());
        match transactions.last_mut() {
            Some(last) if last.number == row.number => last.readings.extend(reading),
            _ => transactions.push(LedgerTransaction {
                number: row.number,
                signature: row.signature,
                state: row.state,
                // A negative slot becomes one above 2^63, which no chain reaches: it differs from the slot on chain.
                slot: row.slot.map(i64::cast_unsigned),
                base_units: row.base_units,
                merkle_root: row.merkle_root,
                readings: reading.into_iter().collect(),
            }),
        }
    }
    transactions
}

impl ReadingRow {
    fn into_reading(self, live: bool) -> Option<LedgerReading> {
        Some(LedgerReading {
            id: self.reading?,
            live,
            content: self.content(),
            state: self.reading_state.unwrap_or_default(),
        })
    }

    fn content(&self) -> Result<ReadingContent, UnreadableReading> {
        let missing = |part| UnreadableReading::Missing(part);
        let start = self
            .interval_start
            .ok_or_else(|| missing(ReadingPart::Start))?;
        let end = self.interval_end.ok_or_else(|| missing(ReadingPart::End))?;
        let kwh = decimal(self.kwh.as_deref(), ReadingPart::Energy)?;
        let base_units = decimal(self.reading_base_units.as_deref(), ReadingPart::Amount)?;
        let serial = self
            .serial
            .as_ref()
            .ok_or_else(|| missing(ReadingPart::Meter))?;
        let wallet = bytes(self.wallet.as_deref())
            .map(Wallet::from_stored)
            .ok_or_else(|| missing(ReadingPart::Wallet))?;
        let base_units = BaseUnits::from_decimal(base_units)?;
        let leaf = Leaf {
            reading_id: self.reading.unwrap_or_default(),
            salt: bytes(self.salt.as_deref()).ok_or_else(|| missing(ReadingPart::Salt))?,
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

/// Characters of a number that an error quotes: a NUMERIC may have thousands.
const SHOWN_DIGITS: usize = 40;

/// Exact, or unreadable.
fn decimal(stored: Option<&str>, part: ReadingPart) -> Result<Decimal, UnreadableReading> {
    let text = stored.ok_or(UnreadableReading::Missing(part))?;
    Decimal::from_str_exact(text).map_err(|_| UnreadableReading::NotANumber {
        part,
        text: text.chars().take(SHOWN_DIGITS).collect(),
    })
}

/// `None` for any other length, too.
fn bytes<const LENGTH: usize>(stored: Option<&[u8]>) -> Option<[u8; LENGTH]> {
    stored?.try_into().ok()
}

/// A transaction of the ledger by its number and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LedgerEntry {
    pub number: i64,
    pub state: MintTransactionState,
}

/// The transactions among these signatures that the ledger has.
pub(super) async fn known_among(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashMap<TxSignature, LedgerEntry>> {
    let rows: Vec<(TxSignature, i64, MintTransactionState)> = sqlx::query_as(
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

/// The transactions of others among these signatures that were read at finalized commitment and minted nothing of ours.
pub(super) async fn read_before(
    pool: &PgPool,
    signatures: &[TxSignature],
) -> sqlx::Result<HashSet<TxSignature>> {
    let rows: Vec<TxSignature> = sqlx::query_scalar(
        "SELECT signature
         FROM history_transactions
         WHERE signature = ANY($1)
           AND problem IS NULL",
    )
    .bind(signatures)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of a transaction with one reading, both valid.
    fn row() -> TransactionRow {
        TransactionRow {
            number: 7,
            signature: TxSignature::from_bytes([9; 64]),
            state: MintTransactionState::Finalized,
            slot: Some(40),
            base_units: BaseUnits::new(1_000),
            merkle_root: vec![5; 32],
            live: Some(true),
            reading: ReadingRow {
                reading: Some(Uuid::from_u128(1)),
                reading_state: Some("finalized".to_owned()),
                interval_start: Some("2026-11-25T04:00:00Z".parse().unwrap()),
                interval_end: Some("2026-11-25T04:15:00Z".parse().unwrap()),
                kwh: Some("1".to_owned()),
                reading_base_units: Some("1000".to_owned()),
                wallet: Some(vec![1; 32]),
                salt: Some(vec![2; 16]),
                serial: Some(MeterSerial::from_stored("M1".to_owned())),
            },
        }
    }

    fn transaction_after(change: impl FnOnce(&mut TransactionRow)) -> LedgerTransaction {
        let mut row = row();
        change(&mut row);
        grouped(vec![row]).pop().unwrap()
    }

    #[test]
    fn every_value_of_a_column_is_kept() {
        let changed = transaction_after(|row| {
            row.number = i64::MIN;
            row.slot = Some(-1);
            row.merkle_root = vec![5; 3];
            row.reading.reading_state = Some("paid".to_owned());
        });
        assert_eq!(changed.number, i64::MIN);
        assert_eq!(changed.slot, Some(u64::MAX));
        assert_eq!(changed.merkle_root, [5; 3]);
        assert_eq!(changed.readings[0].state, "paid");
        let without_state = transaction_after(|row| row.reading.reading_state = None);
        assert_eq!(without_state.readings[0].state, "");
    }

    #[test]
    fn a_reading_that_does_not_convert_is_unreadable() {
        type Change = fn(&mut ReadingRow);
        let cases: [(Change, &str); 10] = [
            (|row| row.wallet = None, "its wallet is missing"),
            (
                |row| row.wallet = Some(vec![1; 31]),
                "its wallet is missing",
            ),
            (|row| row.salt = Some(vec![2; 17]), "its salt is missing"),
            (|row| row.serial = None, "its meter is missing"),
            (|row| row.reading_base_units = None, "its amount is missing"),
            (
                |row| row.reading_base_units = Some("-1".to_owned()),
                "-1 is not an amount of base units: a whole number from 0 to 18446744073709551615, digits only",
            ),
            (
                |row| row.reading_base_units = Some((1_u128 << 64).to_string()),
                "18446744073709551616 is not an amount of base units: a whole number from 0 to 18446744073709551615, digits only",
            ),
            (|row| row.kwh = None, "its energy is missing"),
            (
                |row| row.kwh = Some("NaN".to_owned()),
                "its energy is NaN, which is not a number that a reading can have",
            ),
            (|row| row.interval_end = None, "its end is missing"),
        ];
        assert!(transaction_after(|_| {}).readings[0].content.is_ok());
        for (change, expected) in cases {
            let transaction = transaction_after(|row| change(&mut row.reading));
            let error = transaction.readings[0].content.as_ref().unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(transaction.worth(), Total::ZERO);
        }
        let backwards =
            transaction_after(|row| row.reading.interval_end = row.reading.interval_start);
        assert!(matches!(
            backwards.readings[0].content,
            Err(UnreadableReading::Interval(_))
        ));
        let negative = transaction_after(|row| row.reading.kwh = Some("-1".to_owned()));
        assert!(matches!(
            negative.readings[0].content,
            Err(UnreadableReading::Kwh(_))
        ));
    }

    #[test]
    fn a_transaction_without_readings_has_none() {
        let empty = transaction_after(|row| {
            row.live = None;
            row.reading = ReadingRow {
                reading: None,
                reading_state: None,
                interval_start: None,
                interval_end: None,
                kwh: None,
                reading_base_units: None,
                wallet: None,
                salt: None,
                serial: None,
            };
        });
        assert!(empty.readings.is_empty());
    }
}
