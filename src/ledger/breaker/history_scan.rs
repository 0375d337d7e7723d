//! Rule 7: scans the authority's history from its head down to the watermark, at finalized commitment.
//!
//! Invariant: everything at or below the watermark was read and is either known to the ledger, or stored among the unknown
//! mints. The chain is read first, the ledger afterwards: every transaction that this service sent was recorded before, so a
//! landed mint that the ledger lacks is not one that it is about to record.
//!
//! A scan may take many sittings. Its progress is durable (`scan_progress`), and so is what it has read (`history_transactions`):
//! after a provider's limit, a restart or a change of holder it continues where it was, on any endpoint.
//!
//! The first scan has no watermark to go down to: it counts only on an endpoint whose history begins with the mint, and only if
//! it accounts for the whole supply. A node that has dropped the beginning would let a new database, in the place of one that
//! was lost, pay again what was paid.

use std::time::Duration;

use futures_util::StreamExt;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio::time::sleep;

use super::closing::close_after_scan;
use super::heights::{last_possible_height, no_endpoint};
use super::history_reader::{Read, Reader, is_about_transaction};
use super::history_transactions;
use super::ledger_row::LedgerRow;
use super::mint_creation::require_creation;
use super::opening::open_for_unresolved;
use super::scan_progress::{self, Moved, ScanProgress, ScanStart, Stop};
use super::signing::note_scan_failure;
use super::unknown_mints::{known_among, store_unknown_mints};
use crate::chain::{
    AddressHistory, ChainError, Endpoint, Endpoints, Finality, HistoryRange, ListedTransaction,
    MintLookup, RpcClass, UnusableAnswer,
};
use crate::db::{BigInt, within};
use crate::domain::{BaseUnits, LedgerBreakerState, TxSignature};
use crate::ledger::error::LedgerError;
use crate::telemetry::names;

/// Transactions read from the chain at once, and stored before the next ones are.
const READS_AT_ONCE: usize = 16;
/// Nodes list a block's transactions a little after they report it finalized: the watermark stays this far behind, and the next
/// scan lists these slots again.
const INDEXING_LAG_SLOTS: u64 = 32;

/// Zero means that the history was never scanned. The mint itself is created in a later slot than this, so up to here there is
/// nothing to find.
const FIRST_WATERMARK_SLOT: u64 = 1;
/// A scan that no endpoint continues is given up after so many failures in a row, and begins again at the head: the transaction
/// at its cursor may be one that only an endpoint showed which is gone.
const RESTART_AFTER_FAILURES: i32 = 5;
/// A pause that is shorter is waited for; what lasts longer is worth another endpoint.
const CHECK_PAUSE_EVERY: Duration = Duration::from_secs(2);

/// The findings of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOutcome {
    /// Transactions that mention the authority, from the head to the watermark.
    pub listed: u64,
    pub watermark_slot: u64,
    /// After the scan.
    pub breaker: LedgerBreakerState,
}

/// Scans on the first endpoint that can, or continues the scan that was interrupted: opens the breaker for unknown mints, closes
/// it if nothing holds it open, and raises the watermark. `limit` bounds one transaction of the database; the scan itself may be
/// long. When it fails its progress stays.
pub async fn scan_history(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<ScanOutcome, LedgerError> {
    let scan = HistoryScan {
        pool,
        endpoints,
        mint,
        authority,
        limit,
    };
    let failure = match scan.run().await {
        Ok(outcome) => return Ok(outcome),
        Err(LedgerError::Chain(failure)) => failure,
        Err(failure) => return Err(failure),
    };
    within(limit, scan.note(&failure)).await?;
    Err(LedgerError::Chain(failure))
}

struct HistoryScan<'a> {
    pool: &'a PgPool,
    endpoints: &'a Endpoints,
    mint: &'a Pubkey,
    authority: &'a Pubkey,
    /// On one transaction of the database.
    limit: Duration,
}

impl HistoryScan<'_> {
    async fn run(&self) -> Result<ScanOutcome, LedgerError> {
        let genesis = within(self.limit, LedgerRow::read(self.pool))
            .await?
            .genesis()?;
        let last_possible_height = last_possible_height(self.endpoints, &genesis).await?;
        let mut failure = no_endpoint();
        for endpoint in self.endpoints.for_background() {
            let outcome = tokio::select! {
                outcome = self.run_on(endpoint, last_possible_height) => outcome,
                // Its progress is stored: the next endpoint continues from there.
                () = self.another_is_free(endpoint) => continue,
            };
            match outcome {
                // A limit is the better news of two: it ends by itself.
                Err(LedgerError::Chain(error))
                    if !matches!(failure, ChainError::RateLimited { .. }) =>
                {
                    failure = error;
                }
                Err(LedgerError::Chain(_)) => {}
                outcome => return outcome,
            }
        }
        Err(LedgerError::Chain(failure))
    }

    /// Returns once this endpoint refuses calls for a while and another one answers them. Without another one, the scan waits for
    /// the end of the pause.
    async fn another_is_free(&self, endpoint: &Endpoint) {
        loop {
            sleep(CHECK_PAUSE_EVERY).await;
            let paused = endpoint.paused_for(RpcClass::Background);
            let is_long = paused.is_some_and(|pause| pause > CHECK_PAUSE_EVERY);
            let is_free = |other: &Endpoint| {
                other.is_usable() && other.paused_for(RpcClass::Background).is_none()
            };
            if is_long && self.endpoints.iter().any(is_free) {
                return;
            }
        }
    }

    /// Stores why the scan stopped, for status and metrics.
    async fn note(&self, failure: &ChainError) -> Result<(), LedgerError> {
        let (stop, label) = match failure {
            ChainError::RateLimited { .. } => (Stop::Paused, "paused"),
            _ => (Stop::Failed, "failed"),
        };
        metrics::counter!(names::HISTORY_SCAN_STOPS, "how" => label).increment(1);
        let text = failure.to_string();
        let failures = scan_progress::note_stop(self.pool, stop, &text).await?;
        note_scan_failure(self.pool, &text).await?;
        let lost_cursor = matches!(
            failure,
            ChainError::Unusable {
                reason: UnusableAnswer::HistoryBreaksOff(_)
                    | UnusableAnswer::HistoryOrder { .. }
                    | UnusableAnswer::HistoryRepeats(_),
                ..
            }
        );
        if lost_cursor && failures >= RESTART_AFTER_FAILURES {
            scan_progress::restart(self.pool).await?;
        }
        Ok(())
    }

    async fn run_on(
        &self,
        endpoint: &Endpoint,
        last_possible_height: u64,
    ) -> Result<ScanOutcome, LedgerError> {
        let ledger = within(self.limit, LedgerRow::read(self.pool)).await?;
        endpoint.check_chain(&ledger.genesis_hash).await?;
        let mut checked = false;
        loop {
            let under_way = within(self.limit, ScanProgress::under_way(self.pool)).await?;
            let Some(mut progress) = under_way else {
                self.begin(endpoint).await?;
                continue;
            };
            if !checked {
                self.check_endpoint(endpoint, &mut progress).await?;
                checked = true;
            }
            match self
                .walk(
                    endpoint,
                    &ledger.genesis_hash,
                    &mut progress,
                    last_possible_height,
                )
                .await?
            {
                Moved::ByThis => {
                    return self.finish(endpoint, &progress, last_possible_height).await;
                }
                // Another process scans too: continue from where it is.
                Moved::ByAnother => {}
            }
        }
    }

    async fn begin(&self, endpoint: &Endpoint) -> Result<(), LedgerError> {
        let began_at = within(self.limit, scan_progress::now(self.pool)).await?;
        let before = within(self.limit, LedgerRow::read(self.pool)).await?;
        let floor_slot = before.watermark_slot.get();
        // Before the list: only a scan that began above the breaker's height may close it.
        let head_height = endpoint.finalized_height().await?;
        let head_slot = endpoint.finalized_slot().await?;
        // Before the list, too: every mint that the supply includes must be on it.
        let supply = if floor_slot <= FIRST_WATERMARK_SLOT {
            Some(endpoint.token_supply(self.mint).await?.base_units)
        } else {
            None
        };
        let start = ScanStart {
            began_at,
            floor_slot,
            head_slot,
            head_height,
            supply,
        };
        let begun = ScanProgress::begin(self.pool, &before, &start);
        within(self.limit, begun).await?;
        Ok(())
    }

    /// An endpoint that lacks a part of the history would show a list without it.
    async fn check_endpoint(
        &self,
        endpoint: &Endpoint,
        progress: &mut ScanProgress,
    ) -> Result<(), LedgerError> {
        if progress.supply().is_some() {
            return require_creation(self.pool, endpoint, self.mint, progress).await;
        }
        Ok(check_history(endpoint, progress.floor_slot()).await?)
    }

    /// Reads page after page, from the cursor down to the floor.
    async fn walk(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        progress: &mut ScanProgress,
        last_possible_height: u64,
    ) -> Result<Moved, LedgerError> {
        let range = HistoryRange {
            floor_slot: progress.floor_slot(),
            head_slot: progress.head_slot(),
            finality: Finality::Final,
        };
        let mut pages = AddressHistory::resume(endpoint, *self.authority, range, progress.cursor());
        while let Some(page) = pages.next_page().await? {
            self.classify(endpoint, genesis_hash, &page, last_possible_height)
                .await?;
            let advanced = progress.advance(self.pool, pages.cursor(), page.len());
            if within(self.limit, advanced).await? == Moved::ByAnother {
                return Ok(Moved::ByAnother);
            }
        }
        Ok(Moved::ByThis)
    }

    /// Reads what neither the ledger knows nor was read before, and stores what it is. What was read stays stored when a later
    /// call fails.
    async fn classify(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        page: &[ListedTransaction],
        last_possible_height: u64,
    ) -> Result<(), LedgerError> {
        let signatures: Vec<TxSignature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = within(self.limit, known_among(self.pool, &signatures)).await?;
        let not_due = history_transactions::not_due(self.pool, &signatures);
        let not_due = within(self.limit, not_due).await?;
        let unread: Vec<ListedTransaction> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .filter(|transaction| {
                !known.contains(&transaction.signature) && !not_due.contains(&transaction.signature)
            })
            .cloned()
            .collect();
        let reader = Reader {
            endpoints: self.endpoints,
            genesis_hash,
            lookup: MintLookup {
                endpoint,
                mint: self.mint,
                authority: self.authority,
                finality: Finality::Final,
            },
        };
        for some in unread.chunks(READS_AT_ONCE) {
            let read: Vec<Read> = futures_util::stream::iter(some.to_vec())
                .map(|transaction| async move { reader.read(transaction).await })
                .buffer_unordered(READS_AT_ONCE)
                .collect()
                .await;
            self.store(read, last_possible_height).await?;
        }
        Ok(())
    }

    /// The first failure that is not about a single transaction is returned, after the others were stored.
    async fn store(&self, read: Vec<Read>, last_possible_height: u64) -> Result<(), LedgerError> {
        let (mut mints, mut others, mut failure) = (Vec::new(), Vec::new(), None);
        for (transaction, outcome) in read {
            match outcome {
                Ok(found) if found.payments.is_empty() => others.push(transaction),
                Ok(found) => mints.push(found),
                Err(error) if is_about_transaction(&error) => {
                    let problem = error.to_string();
                    let stored =
                        history_transactions::store_unreadable(self.pool, &transaction, &problem);
                    within(self.limit, stored).await?;
                    tracing::error!(
                        signature = %transaction.signature,
                        slot = transaction.slot,
                        %error,
                        "transaction of the authority's history cannot be read"
                    );
                }
                Err(error) => failure = Some(error),
            }
        }
        if !others.is_empty() {
            let stored = history_transactions::store_read(self.pool, &others);
            within(self.limit, stored).await?;
        }
        if !mints.is_empty() {
            let stored = store_unknown_mints(self.pool, &mints, last_possible_height);
            within(self.limit, stored).await?;
            let signatures: Vec<TxSignature> = mints.iter().map(|mint| mint.signature).collect();
            let forgotten = history_transactions::forget(self.pool, &signatures);
            within(self.limit, forgotten).await?;
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Everything is read down to the floor.
    async fn finish(
        &self,
        endpoint: &Endpoint,
        progress: &ScanProgress,
        last_possible_height: u64,
    ) -> Result<ScanOutcome, LedgerError> {
        let opened = open_for_unresolved(self.pool, last_possible_height);
        within(self.limit, opened).await?;
        if let Some(supply) = progress.supply() {
            within(self.limit, self.check_supply(endpoint, supply)).await?;
        }
        let unreadable = within(self.limit, progress.unreadable(self.pool)).await?;
        let scanned = progress.head_slot().saturating_sub(INDEXING_LAG_SLOTS);
        let scanned = match unreadable {
            // Nothing is signed before a first scan has read everything.
            Some(_) if progress.supply().is_some() => progress.floor_slot(),
            Some(slot) => scanned.min(slot.saturating_sub(1)),
            // The first scan counts even on a chain that has just begun.
            None => scanned.max(FIRST_WATERMARK_SLOT),
        };
        let raised = raise_watermark(self.pool, progress.floor_slot(), scanned);
        let watermark_slot = within(self.limit, raised).await?;
        if let Some(slot) = unreadable {
            within(self.limit, scan_progress::restart_below(self.pool)).await?;
            return Err(LedgerError::Chain(ChainError::Unusable {
                endpoint: endpoint.name().to_owned(),
                reason: UnusableAnswer::UnreadableHistory { slot },
            }));
        }
        let closed = close_after_scan(self.pool, &progress.breaker, progress.head_height());
        let breaker = within(self.limit, closed).await?;
        within(self.limit, progress.finish(self.pool)).await?;
        Ok(ScanOutcome {
            listed: progress.listed(),
            watermark_slot,
            breaker,
        })
    }

    /// Holders may burn tokens, so there may be fewer than were minted, never more.
    async fn check_supply(
        &self,
        endpoint: &Endpoint,
        supply: BaseUnits,
    ) -> Result<(), LedgerError> {
        let known = scan_progress::accounted_for(self.pool).await?;
        if supply.to_decimal() <= known {
            return Ok(());
        }
        // Another endpoint may show more: the next scan begins at the head, and anew in search of the mint's creation.
        scan_progress::restart(self.pool).await?;
        Err(LedgerError::Chain(ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: UnusableAnswer::SupplyAboveHistory { supply, known },
        }))
    }
}

/// Compare-and-set: a scan that another one has overtaken changes nothing.
async fn raise_watermark(pool: &PgPool, floor_slot: u64, scanned: u64) -> sqlx::Result<u64> {
    sqlx::query(
        "UPDATE ledger
         SET watermark_slot = $2,
             -- A closed one has a reason only while the history was never scanned.
             breaker_reason = CASE WHEN breaker <> 'closed' THEN breaker_reason END
         WHERE watermark_slot = $1
           AND watermark_slot < $2",
    )
    .bind(BigInt::from(floor_slot))
    .bind(BigInt::from(scanned))
    .execute(pool)
    .await?;
    Ok(scanned.max(floor_slot))
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
