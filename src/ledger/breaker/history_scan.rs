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
use tokio::time::{Instant, sleep};

use super::closing::close_after_scan;
use super::heights::last_possible_height;
use super::history_reader::{Read, Reader, is_about_transaction};
use super::history_transactions;
use super::ledger_row::LedgerRow;
use super::mint_creation::require_creation;
use super::opening::open_for_unresolved;
use super::scan_checks::{check_history, check_listed, check_supply};
use super::scan_failure::{note, shown};
use super::scan_progress::{self, FIRST_WATERMARK_SLOT, Moved, ScanProgress, ScanStart};
use super::unknown_mints::{known_among, store_unknown_mints};

use crate::chain::{
    AddressHistory, ChainError, Endpoint, Endpoints, Finality, HistoryRange, INDEXING_LAG_SLOTS,
    Lag, ListedTransaction, MintLookup, RpcClass, UnusableAnswer, height_of_block,
};
use crate::db::within;
use crate::domain::{LedgerBreakerState, TxSignature};
use crate::ledger::accounting::minting_conditions::newest_finalized_slot;
use crate::ledger::error::LedgerError;
use crate::ledger::proof::run_store::note_landed;

/// Transactions read from the chain at once, and stored before the next ones are.
const READS_AT_ONCE: usize = 16;
/// A pause that is shorter is waited for; what lasts longer is worth another endpoint.
const CHECK_PAUSE_EVERY: Duration = Duration::from_secs(2);
/// Time for which a list that lacks what the ledger holds as finalized is read again before it counts as one that hides it.
const LIST_AGAIN_FOR: Duration = Duration::from_secs(30);
const LIST_AGAIN_EVERY: Duration = Duration::from_secs(2);

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
    let failures = match scan.run().await {
        Ok(Run::Finished(outcome)) => return Ok(outcome),
        Ok(Run::Stopped(failures)) => failures,
        Err(LedgerError::Chain(failure)) => vec![failure],
        Err(failure) => return Err(failure),
    };
    within(limit, note(pool, &failures)).await?;
    Err(LedgerError::Chain(shown(failures)))
}

/// How all endpoints together got on.
enum Run {
    Finished(ScanOutcome),
    /// The failure of each.
    Stopped(Vec<ChainError>),
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
    async fn run(&self) -> Result<Run, LedgerError> {
        let genesis = within(self.limit, LedgerRow::read(self.pool))
            .await?
            .genesis()?;
        let last_possible_height = last_possible_height(self.endpoints, &genesis).await?;
        let (mut failures, mut pauses) = (Vec::new(), Vec::new());
        for endpoint in self.endpoints.for_background() {
            let outcome = tokio::select! {
                outcome = self.run_on(endpoint, last_possible_height) => outcome,
                // Its progress is stored: the next endpoint continues from there.
                wait = self.another_is_free(endpoint) => {
                    let endpoint = endpoint.name().to_owned();
                    pauses.push(ChainError::RateLimited { endpoint, wait });
                    continue;
                }
            };
            match outcome {
                Err(LedgerError::Chain(failure)) => failures.push(failure),
                outcome => return outcome.map(Run::Finished),
            }
        }
        // A pause hides no failure of another endpoint.
        Ok(Run::Stopped(if failures.is_empty() {
            pauses
        } else {
            failures
        }))
    }

    /// Returns once this endpoint refuses calls for a while and another one answers them. Without another one, the scan waits for
    /// the end of the pause. Returns what is left of the pause.
    async fn another_is_free(&self, endpoint: &Endpoint) -> Duration {
        loop {
            sleep(CHECK_PAUSE_EVERY).await;
            let pause = endpoint
                .paused_for(RpcClass::Background)
                .unwrap_or_default();
            let is_free = |other: &Endpoint| {
                other.is_usable() && other.paused_for(RpcClass::Background).is_none()
            };
            if pause > CHECK_PAUSE_EVERY && self.endpoints.iter().any(is_free) {
                return pause;
            }
        }
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
                    let genesis_hash = &ledger.genesis_hash;
                    return self
                        .finish(endpoint, genesis_hash, &progress, last_possible_height)
                        .await;
                }
                // Another process scans too: continue from where it is.
                Moved::ByAnother => {}
            }
        }
    }

    async fn begin(&self, endpoint: &Endpoint) -> Result<(), LedgerError> {
        // Before the chain: a process that requests a scan later waits for the next one.
        let covers = within(self.limit, scan_progress::last_request(self.pool)).await?;
        let before = within(self.limit, LedgerRow::read(self.pool)).await?;
        let floor_slot = before.watermark_slot.get();
        let newest_known = within(self.limit, newest_finalized_slot(self.pool)).await?;
        // Before the list.
        let head_slot = endpoint.finalized_slot().await?;
        // Its list would end below what landed last, and a scan would count that saw nothing.
        let finalized_slot = newest_known.max(floor_slot);
        if head_slot < finalized_slot {
            return Err(LedgerError::Chain(ChainError::Behind {
                endpoint: endpoint.name().to_owned(),
                lag: Lag::OldHead {
                    slot: head_slot,
                    finalized_slot,
                },
            }));
        }
        let head_height = match before.snapshot.breaker_closes_after_height {
            Some(_) => height_of_block(endpoint, head_slot).await?,
            None => 0,
        };
        // Before the list, too: every mint that the supply includes must be on it.
        let supply = if floor_slot <= FIRST_WATERMARK_SLOT {
            Some(endpoint.token_supply(self.mint).await?.base_units)
        } else {
            None
        };
        let start = ScanStart {
            covers,
            floor_slot,
            head_slot,
            head_height,
            supply,
        };
        let listed_by_now = head_slot.saturating_sub(INDEXING_LAG_SLOTS);
        let begun = ScanProgress::begin(self.pool, &before, &start, listed_by_now);
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
            self.read_page(
                endpoint,
                genesis_hash,
                progress,
                &page,
                last_possible_height,
            )
            .await?;
            let advanced = progress.advance(self.pool, pages.resume_cursor(), page.len());
            if within(self.limit, advanced).await? == Moved::ByAnother {
                return Ok(Moved::ByAnother);
            }
        }
        Ok(Moved::ByThis)
    }

    /// Reads what neither the ledger knows nor was read before, stores what it is, and notes what was listed. What was read stays
    /// stored when a later call fails.
    async fn read_page(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        progress: &ScanProgress,
        page: &[ListedTransaction],
        last_possible_height: u64,
    ) -> Result<(), LedgerError> {
        let signatures: Vec<TxSignature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = within(self.limit, known_among(self.pool, &signatures)).await?;
        let shown: Vec<ListedTransaction> = page
            .iter()
            .filter(|transaction| known.contains(&transaction.signature))
            .cloned()
            .collect();
        let found = note_landed(self.pool, &shown, endpoint.fingerprint());
        within(self.limit, found).await?;
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
        self.read_all(
            self.reader(endpoint, genesis_hash),
            &unread,
            last_possible_height,
        )
        .await?;
        let noted = progress.note_listed(self.pool, &signatures);
        Ok(within(self.limit, noted).await?)
    }

    fn reader<'r>(&'r self, endpoint: &'r Endpoint, genesis_hash: &'r str) -> Reader<'r> {
        Reader {
            endpoints: self.endpoints,
            genesis_hash,
            lookup: MintLookup {
                endpoint,
                mint: self.mint,
                authority: self.authority,
                finality: Finality::Final,
            },
        }
    }

    async fn read_all(
        &self,
        reader: Reader<'_>,
        unread: &[ListedTransaction],
        last_possible_height: u64,
    ) -> Result<(), LedgerError> {
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

    /// Reads unreadable transactions that are due again: a list that omits one makes it no less unreadable.
    async fn read_due(
        &self,
        reader: Reader<'_>,
        last_possible_height: u64,
    ) -> Result<(), LedgerError> {
        let due = within(self.limit, history_transactions::due(self.pool)).await?;
        self.read_all(reader, &due, last_possible_height).await?;
        for transaction in &due {
            let is_absent = reader.is_absent(transaction).await;
            let signature = transaction.signature;
            let noted = history_transactions::note_absence(self.pool, signature, is_absent);
            within(self.limit, noted).await?;
        }
        Ok(())
    }

    /// A node may list what is final much later than it reports it final. What the ledger holds as finalized and the list lacks is
    /// waited for. Then the first list may have lacked unknown mints, too: all of it is read again.
    async fn list_again(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        progress: &ScanProgress,
        last_possible_height: u64,
    ) -> Result<(), LedgerError> {
        let ends_at = Instant::now() + LIST_AGAIN_FOR;
        loop {
            let missing = within(self.limit, progress.not_listed(self.pool)).await?;
            if missing.is_none() || Instant::now() >= ends_at {
                return Ok(());
            }
            sleep(LIST_AGAIN_EVERY).await;
            let range = HistoryRange {
                floor_slot: progress.floor_slot(),
                head_slot: progress.head_slot(),
                finality: Finality::Final,
            };
            let mut pages = AddressHistory::new(endpoint, *self.authority, range);
            while let Some(page) = pages.next_page().await? {
                self.read_page(
                    endpoint,
                    genesis_hash,
                    progress,
                    &page,
                    last_possible_height,
                )
                .await?;
            }
        }
    }

    /// Everything is read down to the floor.
    async fn finish(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        progress: &ScanProgress,
        last_possible_height: u64,
    ) -> Result<ScanOutcome, LedgerError> {
        // The address may lead to another node than it did when the scan began.
        endpoint.check_chain(genesis_hash).await?;
        self.list_again(endpoint, genesis_hash, progress, last_possible_height)
            .await?;
        check_listed(self.pool, self.limit, endpoint, progress).await?;
        self.read_due(self.reader(endpoint, genesis_hash), last_possible_height)
            .await?;
        let opened = open_for_unresolved(self.pool, last_possible_height);
        within(self.limit, opened).await?;
        if let Some(supply) = progress.supply() {
            within(self.limit, check_supply(self.pool, endpoint, supply)).await?;
        }
        // The next scan lists the slots above again.
        let listed_up_to = progress.head_slot().saturating_sub(INDEXING_LAG_SLOTS);
        let unreadable = progress.unreadable(self.pool, listed_up_to);
        let unreadable = within(self.limit, unreadable).await?;
        let scanned = match unreadable {
            // Nothing is signed before a first scan has read everything.
            Some(_) if progress.supply().is_some() => progress.floor_slot(),
            Some(slot) => listed_up_to.min(slot.saturating_sub(1)),
            // The first scan counts even on a chain that has just begun.
            None => listed_up_to.max(FIRST_WATERMARK_SLOT),
        };
        let raised = progress.raise_watermark(self.pool, scanned);
        let raised = within(self.limit, raised).await?;
        if let (Some(slot), Moved::ByThis) = (unreadable, raised) {
            within(self.limit, progress.end_with_unreadable(self.pool)).await?;
            return Err(LedgerError::Chain(ChainError::Unusable {
                endpoint: endpoint.name().to_owned(),
                reason: UnusableAnswer::UnreadableHistory { slot },
            }));
        }
        let watermark_slot = match raised {
            Moved::ByThis => {
                // What was lost may be in the last blocks before that height, which the list may lack yet.
                let listed_height = progress.head_height().saturating_sub(INDEXING_LAG_SLOTS);
                let closed = close_after_scan(self.pool, &progress.breaker, listed_height);
                within(self.limit, closed).await?;
                within(self.limit, progress.finish(self.pool)).await?;
                scanned.max(progress.floor_slot())
            }
            // Another scan has overtaken this one, or the database is another one: nothing of this scan counts.
            Moved::ByAnother => {
                within(self.limit, scan_progress::restart_below(self.pool)).await?;
                progress.floor_slot()
            }
        };
        Ok(ScanOutcome {
            listed: progress.listed(),
            watermark_slot,
            breaker: within(self.limit, LedgerRow::read(self.pool))
                .await?
                .state(),
        })
    }
}
