//! Finds the readings that a landed mint paid: the pending ones that give its sums per wallet and its Merkle root.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use solana_sdk::pubkey::Pubkey;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::chain::ChainMint;
use crate::domain::{
    Adoption, BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, PaidWallet, ReadingState,
    UnpaidReading, Wallet, adoption,
};
use crate::ledger::error::LedgerError;
use crate::ledger::record::PackedReading;

/// Pending readings of the paid wallets that are searched at most, the oldest.
const READINGS_MAX: i64 = 20_000;

/// The findings of a search; `searched` is the number of pending readings of the paid wallets.
pub enum Search {
    Found(Vec<PackedReading>),
    NotFound {
        searched: usize,
    },
    /// The readings can be combined in too many ways, and none that was tried gives the root.
    TooManySets {
        searched: usize,
    },
}

#[derive(FromRow)]
struct PendingReading {
    id: Uuid,
    revision: i64,
    wallet: Wallet,
    base_units: BaseUnits,
    salt: [u8; 16],
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Kwh,
    serial: MeterSerial,
}

pub async fn find_paid_readings(
    pool: &PgPool,
    mint: &Pubkey,
    landed: &ChainMint,
    root: Hash32,
) -> Result<Search, LedgerError> {
    let mut paid: HashMap<Pubkey, u64> = HashMap::new();
    for (account, base_units) in &landed.payments {
        // The sum of all payments fits 64 bits, or the mint is refused later.
        let sum = paid.entry(*account).or_default();
        *sum = sum.saturating_add(base_units.get());
    }
    let wallets: HashMap<Wallet, u64> = wallets_of_pending(pool)
        .await?
        .into_iter()
        .filter_map(|wallet| Some((wallet, *paid.get(&wallet.token_account(mint))?)))
        .collect();
    let pending = pending_of(pool, wallets.keys().copied().collect()).await?;
    let searched = pending.len();
    if wallets.len() < paid.len() {
        return Ok(Search::NotFound { searched });
    }
    let mut revisions: HashMap<Uuid, i64> = HashMap::with_capacity(searched);
    let mut by_wallet: HashMap<Wallet, Vec<UnpaidReading>> = HashMap::new();
    for reading in &pending {
        revisions.insert(reading.id, reading.revision);
        let unpaid = reading.unpaid()?;
        by_wallet.entry(reading.wallet).or_default().push(unpaid);
    }
    let paid_wallets: Vec<PaidWallet> = wallets
        .into_iter()
        .map(|(wallet, base_units)| PaidWallet {
            base_units: BaseUnits::new(base_units),
            readings: by_wallet.remove(&wallet).unwrap_or_default(),
        })
        .collect();
    let found = tokio::task::spawn_blocking(move || adoption(&paid_wallets, root)).await;
    let is_complete = i64::try_from(searched).is_ok_and(|searched| searched < READINGS_MAX);
    Ok(match found {
        Ok(Adoption::Readings(ids)) => Search::Found(
            ids.into_iter()
                .filter_map(|id| {
                    let revision = *revisions.get(&id)?;
                    Some(PackedReading { id, revision })
                })
                .collect(),
        ),
        Ok(Adoption::None) if is_complete => Search::NotFound { searched },
        Ok(Adoption::None | Adoption::TooManySets) | Err(_) => Search::TooManySets { searched },
    })
}

async fn wallets_of_pending(pool: &PgPool) -> sqlx::Result<Vec<Wallet>> {
    sqlx::query_scalar(
        "SELECT DISTINCT wallet
         FROM readings
         WHERE state = $1",
    )
    .bind(ReadingState::Pending)
    .fetch_all(pool)
    .await
}

async fn pending_of(pool: &PgPool, wallets: Vec<Wallet>) -> sqlx::Result<Vec<PendingReading>> {
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
    .bind(ReadingState::Pending)
    .bind(wallets)
    .bind(READINGS_MAX)
    .fetch_all(pool)
    .await
}

impl PendingReading {
    fn unpaid(&self) -> Result<UnpaidReading, LedgerError> {
        let interval = Interval::new(self.interval_start, self.interval_end);
        let leaf = Leaf {
            reading_id: self.id,
            salt: self.salt,
            interval: interval.map_err(|_| LedgerError::Unreadable {
                what: "no interval in reading",
                value: self.id.to_string(),
            })?,
            base_units: self.base_units,
            wallet: self.wallet,
            serial: &self.serial,
            kwh: self.kwh,
        };
        Ok(UnpaidReading {
            id: self.id,
            base_units: self.base_units,
            leaf_hash: leaf.hash(),
        })
    }
}
