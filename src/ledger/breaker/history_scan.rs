//! Rule 7: scans the authority's history from its head down to the watermark, at finalized commitment.
//!
//! Invariant: everything at or below the watermark was read and is either known to the ledger, or stored among the unknown
//! mints. The chain is read first, the ledger afterwards: every transaction that this service sent was recorded before, so a
//! landed mint that the ledger lacks is not one that it is about to record.
//!
//! The first scan has no watermark to go down to: it counts only on an endpoint whose history begins with the mint, and only if
//! it accounts for the whole supply. A node that has dropped the beginning would let a new database, in the place of one that
//! was lost, pay again what was paid.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rust_decimal::Decimal;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::closing::close_after_scan;
use super::heights::{last_possible_height, no_endpoint};
use super::ledger_row::LedgerRow;
use super::opening::open_for_unresolved;
use super::signing::note_scan_failure;
use super::unknown_mints::{known_among, store_unknown_mints};
use crate::chain::{
    AddressHistory, ChainError, ChainMint, Endpoint, Endpoints, Finality, HistoryRange,
    ListedTransaction, MintLookup, UnusableAnswer, history_includes_creation,
};
use crate::db::{BigInt, within};
use crate::domain::{BaseUnits, BreakerState, TxSignature};
use crate::ledger::error::LedgerError;

/// Transactions read from the chain at once.
const READS_AT_ONCE: usize = 16;
/// Nodes list a block's transactions a little after they report it finalized: the watermark stays this far behind, and the next
/// scan lists these slots again.
const INDEXING_LAG_SLOTS: u64 = 32;

/// Zero means that the history was never scanned. The mint itself is created in a later slot than this, so up to here there is
/// nothing to find.
const FIRST_WATERMARK_SLOT: u64 = 1;

/// What a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOutcome {
    /// Transactions that mention the authority, from the head to the watermark.
    pub listed: usize,
    /// Landed mints that the ledger lacks or holds as dead, found for the first time.
    pub new_unknown_mints: u64,
    pub watermark_slot: u64,
    /// After the scan.
    pub breaker: BreakerState,
}

/// Scans on the first endpoint that can: opens the breaker for unknown mints, closes it if nothing holds it open, and raises the
/// watermark. `limit` bounds one transaction of the database; the scan itself may be long.
pub async fn scan_history(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<ScanOutcome, LedgerError> {
    let before = within(limit, LedgerRow::read(pool)).await?;
    let last_possible_height = last_possible_height(endpoints).await?;
    let scan = HistoryScan {
        pool,
        mint,
        authority,
        before,
        last_possible_height,
        limit,
    };
    let mut failure = no_endpoint();
    for endpoint in endpoints.iter() {
        match scan.run_on(endpoint).await {
            Err(LedgerError::Chain(error)) => failure = error,
            outcome => return outcome,
        }
    }
    note_scan_failure(pool, &failure.to_string()).await?;
    Err(LedgerError::Chain(failure))
}

struct HistoryScan<'a> {
    pool: &'a PgPool,
    mint: &'a Pubkey,
    authority: &'a Pubkey,
    /// As it was when the scan began.
    before: LedgerRow,
    last_possible_height: u64,
    /// On one transaction of the database.
    limit: Duration,
}

impl HistoryScan<'_> {
    async fn run_on(&self, endpoint: &Endpoint) -> Result<ScanOutcome, LedgerError> {
        endpoint.check_chain(&self.before.genesis_hash).await?;
        // Before the list: only a scan that began above the breaker's height may close it.
        let finalized_height = endpoint.finalized_height().await?;
        let finalized_slot = endpoint.finalized_slot().await?;
        let watermark = self.before.watermark_slot.get();
        // Before the list, too: every mint that the supply includes must be on it.
        let to_account_for = if watermark <= FIRST_WATERMARK_SLOT {
            check_beginning(endpoint, self.mint).await?;
            Some(endpoint.token_supply(self.mint).await?.base_units)
        } else {
            check_history(endpoint, watermark).await?;
            None
        };
        let range = HistoryRange {
            floor_slot: watermark,
            head_slot: finalized_slot,
            finality: Finality::Final,
        };
        let mut pages = AddressHistory::new(endpoint, *self.authority, range);
        let (mut listed, mut new_unknown_mints) = (0, 0);
        while let Some(page) = pages.next_page().await? {
            listed += page.len();
            let unknown = self.unknown_mints(endpoint, &page).await?;
            if !unknown.is_empty() {
                let height = self.last_possible_height;
                let stored = store_unknown_mints(self.pool, &unknown, height);
                new_unknown_mints += within(self.limit, stored).await?;
            }
        }
        let opened = open_for_unresolved(self.pool, self.last_possible_height);
        within(self.limit, opened).await?;
        if let Some(supply) = to_account_for {
            within(self.limit, self.check_supply(endpoint, supply)).await?;
        }
        let watermark_slot = within(self.limit, self.raise_watermark(finalized_slot)).await?;
        let closed = close_after_scan(self.pool, &self.before, finalized_height);
        let breaker = within(self.limit, closed).await?;
        Ok(ScanOutcome {
            listed,
            new_unknown_mints,
            watermark_slot,
            breaker,
        })
    }

    /// Of this page, the transactions that minted with our authority's signature and that the ledger does not know.
    async fn unknown_mints(
        &self,
        endpoint: &Endpoint,
        page: &[ListedTransaction],
    ) -> Result<Vec<ChainMint>, LedgerError> {
        let landed: Vec<TxSignature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = within(self.limit, known_among(self.pool, &landed)).await?;
        let unknown: Vec<TxSignature> = landed
            .into_iter()
            .filter(|signature| !known.contains(signature))
            .collect();
        let lookup = MintLookup {
            endpoint,
            mint: self.mint,
            authority: self.authority,
            finality: Finality::Final,
        };
        let read: Vec<ChainMint> = futures_util::stream::iter(unknown)
            .map(|signature| async move { lookup.read_listed(signature).await })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(read
            .into_iter()
            .filter(|transaction| !transaction.payments.is_empty())
            .collect())
    }

    /// Holders may burn tokens, so there may be fewer than were minted, never more.
    async fn check_supply(
        &self,
        endpoint: &Endpoint,
        supply: BaseUnits,
    ) -> Result<(), LedgerError> {
        let known: Decimal = sqlx::query_scalar(
            "SELECT COALESCE((SELECT sum(base_units) FROM mint_transactions WHERE state <> 'dead'), 0)
                  + COALESCE((SELECT sum(base_units) FROM foreign_mints), 0)",
        )
        .fetch_one(self.pool)
        .await?;
        if supply.to_decimal() <= known {
            return Ok(());
        }
        Err(LedgerError::Chain(ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: UnusableAnswer::SupplyAboveHistory { supply, known },
        }))
    }

    /// Compare-and-set: a scan that another one has overtaken changes nothing.
    async fn raise_watermark(&self, finalized_slot: u64) -> sqlx::Result<u64> {
        let scanned = finalized_slot
            .saturating_sub(INDEXING_LAG_SLOTS)
            .max(FIRST_WATERMARK_SLOT);
        sqlx::query(
            "UPDATE ledger
             SET watermark_slot = $2,
                 -- A closed one has a reason only while the history was never scanned.
                 breaker_reason = CASE WHEN breaker <> 'closed' THEN breaker_reason END
             WHERE watermark_slot = $1
               AND watermark_slot < $2",
        )
        .bind(self.before.watermark_slot)
        .bind(BigInt::from(scanned))
        .execute(self.pool)
        .await?;
        Ok(scanned.max(self.before.watermark_slot.get()))
    }
}

async fn check_beginning(endpoint: &Endpoint, mint: &Pubkey) -> Result<(), ChainError> {
    if history_includes_creation(endpoint, mint).await? {
        return Ok(());
    }
    Err(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::HistoryWithoutCreation { mint: *mint },
    })
}

/// A node that has lost blocks above the watermark would show a history without the transactions in them.
async fn check_history(endpoint: &Endpoint, watermark_slot: u64) -> Result<(), ChainError> {
    let oldest = endpoint.first_available_slot().await?;
    if oldest <= watermark_slot + 1 {
        return Ok(());
    }
    Err(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::HistoryBeginsLate {
            oldest_slot: oldest,
            watermark_slot,
        },
    })
}
