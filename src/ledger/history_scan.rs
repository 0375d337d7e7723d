//! Rule 7: the walk from the head of the authority's history down to the watermark, at finalized commitment.
//!
//! Invariant: everything at or below the watermark was read and is either known to the ledger, or stored among the foreign
//! mints. The chain is read first, the ledger afterwards: whatever we have sent was recorded before, so that a landed mint
//! which the ledger lacks is not one that it is about to learn of.
//!
//! The first walk has no watermark to go down to: it counts only on an endpoint whose history begins with the mint, and when it
//! accounts for the whole supply. A node that has forgotten the beginning would let a new database in the place of one that was
//! lost pay again what it has paid.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rust_decimal::Decimal;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use sqlx::PgPool;

use super::LedgerError;
use super::breaker::{self, BreakerState, LedgerRow};
use super::unknown_mints;
use crate::chain::{
    AddressHistory, ChainError, ChainMint, Endpoint, Endpoints, HistoryRange, ListedTransaction,
    MintLookup, UnusableAnswer, history_includes_creation,
};
use crate::db::within;
use crate::domain::BaseUnits;

/// Transactions read from the chain at once.
const READS_AT_ONCE: usize = 16;
/// Nodes list a block's transactions a little after they call it finalized: the watermark stays so far behind, and the next
/// walk lists these slots again.
const INDEXING_LAG_SLOTS: u64 = 32;

/// Zero says that the history was never walked; the mint itself is made in a later slot than this, so that up to here there is
/// nothing to know.
const FIRST_WATERMARK_SLOT: u64 = 1;

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOutcome {
    /// Transactions that mention the authority, from the head to the watermark.
    pub listed: u64,
    /// Landed mints that the ledger lacks or holds as dead, found now for the first time.
    pub foreign: u64,
    pub watermark_slot: u64,
    /// Afterwards.
    pub breaker: BreakerState,
}

/// Walks on the first endpoint that can: opens the breaker for what is not known, closes it if nothing holds it open any
/// more, and moves the watermark up. `limit` is that of one transaction of the database; the walk itself may be long.
pub async fn scan_history(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<ScanOutcome, LedgerError> {
    let before = within(limit, LedgerRow::read(pool)).await?;
    let last_possible_height = breaker::last_possible_height(endpoints).await?;
    let walk = HistoryScan {
        pool,
        mint,
        authority,
        before,
        last_possible_height,
        limit,
    };
    let mut failure = None;
    for endpoint in endpoints.iter() {
        match walk.on(endpoint).await {
            Err(LedgerError::Chain(error)) => failure = Some(error),
            outcome => return outcome,
        }
    }
    let failure = failure.unwrap_or_else(|| ChainError::NoneUsable {
        endpoints: Vec::new(),
    });
    breaker::note_never_walked(pool, &failure.to_string()).await?;
    Err(LedgerError::Chain(failure))
}

struct HistoryScan<'a> {
    pool: &'a PgPool,
    mint: &'a Pubkey,
    authority: &'a Pubkey,
    /// As it was when the walk began.
    before: LedgerRow,
    last_possible_height: u64,
    /// Of one transaction of the database.
    limit: Duration,
}

impl HistoryScan<'_> {
    async fn on(&self, endpoint: &Endpoint) -> Result<ScanOutcome, LedgerError> {
        endpoint.check_chain(&self.before.genesis_hash).await?;
        // Before the list: only a walk that began above the breaker's height may close it.
        let finalized_height = endpoint.finalized_height().await?;
        let finalized_slot = endpoint.finalized_slot().await?;
        let watermark = self.before.watermark_slot as u64;
        // Before the list, too: what the supply counts must be on it.
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
            commitment: CommitmentConfig::finalized(),
        };
        let mut pages = AddressHistory::new(endpoint, *self.authority, range);
        let (mut listed, mut foreign) = (0, 0);
        while let Some(page) = pages.next_page().await? {
            listed += page.len() as u64;
            let unknown = self.unknown_mints(endpoint, &page).await?;
            if !unknown.is_empty() {
                let height = self.last_possible_height;
                let booked = unknown_mints::store_unknown_mints(self.pool, &unknown, height);
                foreign += within(self.limit, booked).await?;
            }
        }
        let opened = unknown_mints::open_for_unresolved(self.pool, self.last_possible_height);
        within(self.limit, opened).await?;
        if let Some(supply) = to_account_for {
            within(self.limit, self.check_supply(endpoint, supply)).await?;
        }
        let watermark_slot = within(self.limit, self.raise_watermark(finalized_slot)).await?;
        let closed = breaker::close_after_walk(self.pool, &self.before, finalized_height);
        let breaker = within(self.limit, closed).await?;
        Ok(ScanOutcome {
            listed,
            foreign,
            watermark_slot,
            breaker,
        })
    }

    /// Of this page, the transactions that minted by our authority's signature and that the ledger does not know.
    async fn unknown_mints(
        &self,
        endpoint: &Endpoint,
        page: &[ListedTransaction],
    ) -> Result<Vec<ChainMint>, LedgerError> {
        let landed: Vec<Signature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = within(self.limit, known_among(self.pool, &landed)).await?;
        let unknown: Vec<Signature> = landed
            .into_iter()
            .filter(|signature| !known.contains(signature.as_ref()))
            .collect();
        let lookup = MintLookup {
            endpoint,
            mint: self.mint,
            authority: self.authority,
            commitment: CommitmentConfig::finalized(),
        };
        let read: Vec<ChainMint> = futures_util::stream::iter(unknown)
            .map(|signature| async move { lookup.read_listed(&signature).await })
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

    /// Compare-and-set: a walk that another one has overtaken changes nothing.
    async fn raise_watermark(&self, finalized_slot: u64) -> sqlx::Result<u64> {
        let walked = finalized_slot
            .saturating_sub(INDEXING_LAG_SLOTS)
            .max(FIRST_WATERMARK_SLOT) as i64;
        sqlx::query(
            "UPDATE ledger
             SET watermark_slot = $2,
                 -- A closed one has a reason only while the history was never walked.
                 breaker_reason = CASE WHEN breaker <> 'closed' THEN breaker_reason END
             WHERE watermark_slot = $1
               AND watermark_slot < $2",
        )
        .bind(self.before.watermark_slot)
        .bind(walked)
        .execute(self.pool)
        .await?;
        Ok(walked.max(self.before.watermark_slot) as u64)
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

/// A node that has lost the blocks above the watermark would show a history without what they hold.
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

/// What is in the ledger and may land, or is stored among the foreign mints.
pub(super) async fn known_among(
    pool: &PgPool,
    signatures: &[Signature],
) -> sqlx::Result<HashSet<Vec<u8>>> {
    let bytes: Vec<&[u8]> = signatures.iter().map(AsRef::as_ref).collect();
    let texts: Vec<String> = signatures.iter().map(ToString::to_string).collect();
    let known: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT signature
         FROM mint_transactions
         WHERE signature = ANY($1)
           AND state <> 'dead'
         UNION ALL
         SELECT listed.bytes
         FROM UNNEST($1, $2::TEXT[]) AS listed (bytes, text)
         JOIN foreign_mints ON foreign_mints.signature = listed.text",
    )
    .bind(bytes)
    .bind(texts)
    .fetch_all(pool)
    .await?;
    Ok(known.into_iter().collect())
}
