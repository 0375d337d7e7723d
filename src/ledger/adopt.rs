//! A landed mint that the ledger lacks gets its readings back: those whose sums per wallet and whose Merkle root give it.
//!
//! Invariant: it is booked only for readings of which its own memo proves that it paid them, and only while nothing else
//! pays them. They take the way of every other: recorded, confirmed, and finalized by the Resolver.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;
use spl_associated_token_account_interface::address::get_associated_token_address;
use sqlx::{FromRow, PgConnection, PgPool};
use thiserror::Error;
use uuid::Uuid;

use super::LedgerError;
use super::record::{self, NewMintTransaction, PackedReading};
use super::transitions::{self, Confirmed, Landed};
use super::unknown_mints::{self, UnknownMintError};
use crate::chain::{ChainMint, Endpoints, RecentBlockhash};
use crate::db::SqlCondition;
use crate::domain::{
    Adoption, BaseUnits, Interval, Kwh, Leaf, Memo, MeterSerial, MintTransactionEvent, PaidWallet,
    ReadingState, UnpaidReading, Wallet, adoption,
};

/// Unpaid readings of these wallets that are looked at, the oldest.
const READINGS_MAX: i64 = 20_000;
/// For the signature of a transaction, lamports.
const LAMPORTS_PER_SIGNATURE: u64 = 5_000;

/// Why a mint is not adopted.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The chain does not show it as a landed mint of ours, or the ledger has it.
    #[error(transparent)]
    Foreign(#[from] UnknownMintError),
    #[error(
        "the ledger holds transaction {signature} as dead (number {number}); if its readings were paid by another one since, \
         book it with --foreign"
    )]
    HeldAsDead { signature: Signature, number: u64 },
    #[error(
        "transaction {signature} has no memo of this program, so nothing tells which readings it paid; book it with --foreign"
    )]
    NoMemo { signature: Signature },
    #[error(
        "transaction {signature} has number {number}, which another transaction has in the ledger; book it with --foreign"
    )]
    NumberTaken { signature: Signature, number: u64 },
    #[error(
        "no pending readings of this database give the sums and the root of transaction {signature} ({looked_at} were looked \
         at). Failed ones count after a retry. If its readings are not here any more, book it with --foreign"
    )]
    NoReadings {
        signature: Signature,
        looked_at: usize,
    },
    #[error(
        "the pending readings of the wallets that transaction {signature} paid can be put together in too many ways \
         ({looked_at} were looked at), and none that was tried gives its root; adopt the transactions with lower numbers first"
    )]
    TooManySets {
        signature: Signature,
        looked_at: usize,
    },
    #[error(
        "a reading that transaction {signature} paid has changed while it was adopted; try again"
    )]
    Changed { signature: Signature },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for AdoptError {
    fn from(error: sqlx::Error) -> AdoptError {
        AdoptError::Ledger(error.into())
    }
}

/// A landed mint, and the readings that it paid.
#[derive(Debug)]
pub struct Adoptable {
    new: NewMintTransaction,
    slot: u64,
}

impl Adoptable {
    /// From its memo.
    pub fn number(&self) -> u64 {
        self.new.number
    }
}

/// What was adopted, once the caller has committed.
#[derive(Debug)]
#[must_use = "to be counted after the commit"]
pub struct Adopted {
    pub readings: u64,
    confirmed: Confirmed,
}

impl Adopted {
    /// Counts it; after the commit.
    pub fn committed(&self) {
        self.confirmed.report();
    }
}

/// Reads the mint from the chain, at finalized commitment, and finds its readings, without holding anything.
pub async fn check_adoptable(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    signature: Signature,
) -> Result<Adoptable, AdoptError> {
    let landed =
        unknown_mints::fetch_unknown_mint(pool, endpoints, mint, authority, signature).await?;
    if let Some(number) = landed.held_as_dead {
        return Err(AdoptError::HeldAsDead { signature, number });
    }
    let memo = landed.mint.memo.ok_or(AdoptError::NoMemo { signature })?;
    let number = memo.number().get();
    let taken: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM mint_transactions WHERE number = $1)")
            .bind(number as i64)
            .fetch_one(pool)
            .await?;
    if taken {
        return Err(AdoptError::NumberTaken { signature, number });
    }
    let readings = readings_of(pool, mint, &landed.mint, &memo).await?;
    Ok(Adoptable {
        new: booked(&landed, &memo, readings)?,
        slot: landed.mint.slot,
    })
}

/// Books it in the caller's transaction, whatever the breaker says: nothing is signed.
pub async fn adopt(
    transaction: &mut PgConnection,
    adoptable: &Adoptable,
) -> Result<Adopted, AdoptError> {
    let new = &adoptable.new;
    let signature = new.signature;
    sqlx::query("DELETE FROM foreign_mints WHERE signature = $1")
        .bind(signature.to_string())
        .execute(&mut *transaction)
        .await?;
    let submitted =
        record::store(transaction, new)
            .await
            .map_err(|error| match SqlCondition::of(&error) {
                // A reading that something else pays by now, or a number that was taken meanwhile.
                SqlCondition::UniqueViolation => AdoptError::Changed { signature },
                _ => error.into(),
            })?;
    if submitted != new.readings.len() as u64 {
        return Err(AdoptError::Changed { signature });
    }
    unknown_mints::raise_next_number(transaction, new.number).await?;
    let landed = [Landed {
        number: new.number as i64,
        slot: adoptable.slot,
    }];
    let event = MintTransactionEvent::Confirmed;
    let confirmed = transitions::confirm_in(transaction, &landed, event).await?;
    Ok(Adopted {
        readings: confirmed.readings.len() as u64,
        confirmed,
    })
}

/// As it would have been recorded. What only serves to send it again or to prove it dead is of no use any more.
fn booked(
    landed: &unknown_mints::UnknownMint,
    memo: &Memo,
    readings: Vec<PackedReading>,
) -> Result<NewMintTransaction, AdoptError> {
    let signature = landed.mint.signature;
    let unreadable = |what| LedgerError::Unreadable {
        what,
        value: signature.to_string(),
    };
    let transaction = &landed.transaction;
    let signed_bytes = bincode::serialize(transaction)
        .map_err(|_| unreadable("a transaction that cannot be serialised"))?;
    let base_units = landed
        .mint
        .base_units()
        .ok_or_else(|| unreadable("a mint of more than 64 bits"))?;
    let signatures = transaction.signatures.len() as u64;
    Ok(NewMintTransaction {
        number: memo.number().get(),
        signature,
        signed_bytes,
        merkle_root: memo.root(),
        base_units,
        blockhash: RecentBlockhash {
            hash: *transaction.message.recent_blockhash(),
            slot: landed.mint.slot,
            last_valid_block_height: landed.finalized_height,
        },
        endpoint: landed.endpoint.clone(),
        account_creations: account_creations(transaction),
        fee_lamports: landed.mint.fee_lamports,
        priority_fee_lamports: landed
            .mint
            .fee_lamports
            .saturating_sub(signatures * LAMPORTS_PER_SIGNATURE),
        readings,
    })
}

fn account_creations(transaction: &VersionedTransaction) -> u32 {
    let keys = transaction.message.static_account_keys();
    let creates = |program: u8| {
        keys.get(usize::from(program)) == Some(&spl_associated_token_account_interface::program::ID)
    };
    let instructions = transaction.message.instructions().iter();
    instructions
        .filter(|instruction| creates(instruction.program_id_index))
        .count() as u32
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    revision: i64,
    wallet: Vec<u8>,
    base_units: Decimal,
    salt: Vec<u8>,
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Decimal,
    serial: String,
}

async fn readings_of(
    pool: &PgPool,
    mint: &Pubkey,
    landed: &ChainMint,
    memo: &Memo,
) -> Result<Vec<PackedReading>, AdoptError> {
    let signature = landed.signature;
    let mut paid: HashMap<Pubkey, u64> = HashMap::new();
    for (account, base_units) in &landed.payments {
        // The whole fits 64 bits, or it is refused later.
        let sum = paid.entry(*account).or_default();
        *sum = sum.saturating_add(base_units.get());
    }
    let accounts = accounts_of_pending(pool, mint).await?;
    let wallets: HashMap<Wallet, u64> = accounts
        .into_iter()
        .filter_map(|(wallet, account)| Some((wallet, *paid.get(&account)?)))
        .collect();
    let rows = pending_of(pool, wallets.keys()).await?;
    let looked_at = rows.len();
    if wallets.len() < paid.len() {
        return Err(AdoptError::NoReadings {
            signature,
            looked_at,
        });
    }
    let mut revisions: HashMap<Uuid, i64> = HashMap::with_capacity(rows.len());
    let mut by_wallet: HashMap<Wallet, Vec<UnpaidReading>> = HashMap::new();
    for row in &rows {
        let (wallet, reading) = row.unpaid()?;
        revisions.insert(row.id, row.revision);
        by_wallet.entry(wallet).or_default().push(reading);
    }
    let paid_wallets: Vec<PaidWallet> = wallets
        .into_iter()
        .map(|(wallet, base_units)| PaidWallet {
            base_units: BaseUnits::new(base_units),
            readings: by_wallet.remove(&wallet).unwrap_or_default(),
        })
        .collect();
    let root = memo.root();
    let found = tokio::task::spawn_blocking(move || adoption(&paid_wallets, root)).await;
    match found {
        Ok(Adoption::Readings(ids)) => Ok(ids
            .into_iter()
            .filter_map(|id| {
                let revision = *revisions.get(&id)?;
                Some(PackedReading { id, revision })
            })
            .collect()),
        Ok(Adoption::None) if (looked_at as i64) < READINGS_MAX => Err(AdoptError::NoReadings {
            signature,
            looked_at,
        }),
        Ok(Adoption::None | Adoption::TooManySets) | Err(_) => Err(AdoptError::TooManySets {
            signature,
            looked_at,
        }),
    }
}

/// The wallets that wait, with their token accounts.
async fn accounts_of_pending(
    pool: &PgPool,
    mint: &Pubkey,
) -> Result<Vec<(Wallet, Pubkey)>, LedgerError> {
    let stored: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT DISTINCT wallet
         FROM readings
         WHERE state = $1",
    )
    .bind(ReadingState::Pending.as_str())
    .fetch_all(pool)
    .await?;
    stored
        .iter()
        .map(|bytes| {
            let wallet = transitions::wallet_of(bytes)?;
            Ok((wallet, get_associated_token_address(&wallet.pubkey(), mint)))
        })
        .collect()
}

async fn pending_of(
    pool: &PgPool,
    wallets: impl Iterator<Item = &Wallet>,
) -> sqlx::Result<Vec<Row>> {
    let wallets: Vec<Vec<u8>> = wallets
        .map(|wallet| wallet.pubkey().to_bytes().to_vec())
        .collect();
    sqlx::query_as(
        "SELECT reading.id, reading.revision, reading.wallet, reading.base_units, reading.salt,
                reading.interval_start, reading.interval_end, reading.kwh, meter.serial
         FROM readings AS reading
         JOIN meters AS meter ON meter.id = reading.meter
         WHERE reading.state = $1
           AND reading.wallet = ANY($2)
         -- In the order of acceptance.
         ORDER BY reading.id
         LIMIT $3",
    )
    .bind(ReadingState::Pending.as_str())
    .bind(wallets)
    .bind(READINGS_MAX)
    .fetch_all(pool)
    .await
}

impl Row {
    fn unpaid(&self) -> Result<(Wallet, UnpaidReading), LedgerError> {
        let unreadable = |what| LedgerError::Unreadable {
            what,
            value: self.id.to_string(),
        };
        let wallet = transitions::wallet_of(&self.wallet)?;
        let base_units = transitions::base_units_of(&self.base_units)?;
        let salt = self.salt.as_slice().try_into();
        let interval = Interval::new(self.interval_start, self.interval_end);
        let leaf = Leaf {
            reading_id: self.id,
            salt: salt.map_err(|_| unreadable("a salt of another length in reading"))?,
            interval: interval.map_err(|_| unreadable("no interval in reading"))?,
            base_units,
            wallet,
            serial: &MeterSerial::from_stored(self.serial.clone()),
            kwh: Kwh::from_decimal(self.kwh)
                .map_err(|_| unreadable("no energy amount in reading"))?,
        };
        let reading = UnpaidReading {
            id: self.id,
            base_units,
            leaf_hash: leaf.hash(),
        };
        Ok((wallet, reading))
    }
}
