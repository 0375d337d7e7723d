//! Proves that an expired transaction did not land: rule 3 of the ledger. This file decides that a transaction is dead because it
//! expired, or that it is quarantined because no proof comes.
//!
//! Invariant: only an unbroken chain of finalized blocks over a transaction's whole life that does not hold its signature makes
//! it dead ([`scan_blocks`]); a clock or a "not found" never does. One scan serves all transactions that it covers.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::limits::ResolverLimits;
use super::open_transactions::{self, OpenTransaction};
use crate::chain::{BlockScan, Endpoint, Endpoints, NoProof, scan_blocks};
use crate::db::within;
use crate::domain::{Backoff, Jitter, MintNumber, MintTransactionState, Retries};
use crate::ledger::breaker::ledger_row::LedgerRow;
use crate::ledger::error::LedgerError;
use crate::ledger::transitions;
use crate::periodic::{Periodic, RunError};

/// Block heights that one scan may span beyond the oldest transaction's life.
const HEIGHTS_PER_SCAN: u64 = 600;

/// Pause after a round whose scans proved nothing: a scan reads hundreds of blocks. The cap is short because a person who adds an
/// endpoint that fills the gap should not wait long afterwards.
const SCAN_BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(4), Duration::from_secs(15))
    .with_jitter(Jitter::between(75, 100));

/// Searches for proofs, and counts the time that passes without one.
pub struct ExpiryProver {
    pool: PgPool,
    endpoints: Endpoints,
    limits: ResolverLimits,
    /// Up to here time without a proof is counted.
    counted_until: Instant,
    /// No scan before this moment.
    scan_from: Instant,
    retries: Retries,
    scans_failed: bool,
}

impl Periodic for ExpiryProver {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.round().await?)
    }
}

impl ExpiryProver {
    pub fn new(pool: PgPool, endpoints: Endpoints, limits: ResolverLimits) -> ExpiryProver {
        ExpiryProver {
            pool,
            endpoints,
            limits,
            counted_until: Instant::now(),
            scan_from: Instant::now(),
            retries: Retries::new(SCAN_BACKOFF),
            scans_failed: false,
        }
    }

    /// Searches once for every transaction that has expired and was not seen on chain.
    async fn round(&mut self) -> Result<(), LedgerError> {
        let elapsed_secs = self.counted_until.elapsed().as_secs();
        let mut remaining = self.unseen().await?;
        let Some(oldest) = remaining
            .iter()
            .map(|open| open.last_valid_block_height)
            .min()
        else {
            self.counted_until = Instant::now();
            return Ok(());
        };
        let row = self.within_limit(LedgerRow::read(&self.pool)).await?;
        let may_scan = Instant::now() >= self.scan_from;
        let mut answered = false;
        let endpoints = self.endpoints.clone();
        for endpoint in endpoints.iter() {
            let Ok(height) = endpoint.finalized_height().await else {
                continue;
            };
            answered = true;
            if height <= oldest || !may_scan {
                continue;
            }
            if let Err(error) = endpoint.check_chain(&row.genesis_hash).await {
                tracing::warn!(%error, "endpoint skipped in the search for proofs: its chain is not known");
                continue;
            }
            remaining = self.prove_with(endpoint, height, remaining).await?;
            if remaining.is_empty() {
                break;
            }
        }
        if may_scan {
            self.back_off();
        }
        if answered {
            self.count_unproven(&remaining, elapsed_secs).await?;
        }
        Ok(())
    }

    async fn within_limit<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, query).await
    }

    /// The open transactions that are not known to have landed.
    async fn unseen(&self) -> sqlx::Result<Vec<OpenTransaction>> {
        let mut open = self
            .within_limit(open_transactions::open_transactions(&self.pool))
            .await?;
        open.retain(|open| {
            matches!(
                open.state,
                MintTransactionState::Recorded | MintTransactionState::Quarantined
            )
        });
        Ok(open)
    }

    /// Scans with one endpoint, oldest transactions first. Returns those that are not proven dead.
    async fn prove_with(
        &mut self,
        endpoint: &Endpoint,
        finalized_height: u64,
        unseen: Vec<OpenTransaction>,
    ) -> Result<Vec<OpenTransaction>, LedgerError> {
        let (mut expired, mut remaining): (Vec<_>, Vec<_>) = unseen
            .into_iter()
            .partition(|open| open.last_valid_block_height < finalized_height);
        expired.sort_by_key(|open| open.last_valid_block_height);
        while let Some(first) = expired.first() {
            let lowest = first.last_valid_block_height;
            let span = expired
                .iter()
                .take_while(|open| open.last_valid_block_height <= lowest + HEIGHTS_PER_SCAN)
                .count();
            let group: Vec<OpenTransaction> = expired.drain(..span).collect();
            let highest = group
                .last()
                .map_or(lowest, |open| open.last_valid_block_height);
            let from_slot = group
                .iter()
                .map(|open| open.blockhash_slot)
                .min()
                .unwrap_or_default();
            match scan_blocks(endpoint, from_slot, lowest, highest).await {
                Ok(scan) => {
                    if let Some(no_proof) = scan.first_hole() {
                        self.note_failure(no_proof, group.len());
                    }
                    remaining.extend(self.end_proven(&scan, group).await?);
                }
                Err(no_proof) => {
                    self.note_failure(&no_proof, group.len());
                    remaining.extend(group);
                }
            }
        }
        Ok(remaining)
    }

    /// Marks those dead that the scan proves absent. Returns the others.
    async fn end_proven(
        &self,
        scan: &BlockScan,
        group: Vec<OpenTransaction>,
    ) -> sqlx::Result<Vec<OpenTransaction>> {
        let mut remaining = Vec::new();
        for open in group {
            let signature = open.signature.to_string();
            if !scan.proves_absent(&signature, open.last_valid_block_height) {
                remaining.push(open);
                continue;
            }
            let dead = transitions::mark_dead_expired(&self.pool, open.number);
            let readings = self.within_limit(dead).await?;
            tracing::warn!(
                signature,
                number = %open.number,
                readings,
                "mint transaction expired and is proven absent from the chain; its readings are minted anew"
            );
        }
        Ok(remaining)
    }

    /// Logs once for each series of scans that prove nothing.
    fn note_failure(&mut self, no_proof: &NoProof, transactions: usize) {
        if self.retries.failures() == 0 {
            tracing::warn!(
                %no_proof,
                transactions,
                "no proof yet whether expired mint transactions landed; scanning again, at growing intervals"
            );
        } else {
            tracing::debug!(%no_proof, transactions, "still no proof");
        }
        self.scans_failed = true;
    }

    /// After a round that was allowed to scan: sets the pause before the next scans.
    fn back_off(&mut self) {
        let pause = if std::mem::take(&mut self.scans_failed) {
            self.retries.next_delay(rand::random())
        } else {
            self.retries.reset();
            Duration::ZERO
        };
        self.scan_from = Instant::now() + pause;
    }

    /// Adds the time without a proof, and quarantines transactions for which it has become too long.
    async fn count_unproven(
        &mut self,
        remaining: &[OpenTransaction],
        elapsed_secs: u64,
    ) -> Result<(), LedgerError> {
        if elapsed_secs == 0 {
            return Ok(());
        }
        self.counted_until = Instant::now();
        let Some(height) = self.highest_finalized().await else {
            return Ok(());
        };
        let unproven: Vec<&OpenTransaction> = remaining
            .iter()
            .filter(|open| open.last_valid_block_height < height)
            .collect();
        if unproven.is_empty() {
            return Ok(());
        }
        let numbers: Vec<MintNumber> = unproven.iter().map(|open| open.number).collect();
        let added = open_transactions::add_unproven_secs(&self.pool, &numbers, elapsed_secs);
        self.within_limit(added).await?;
        let limit_secs = self.limits.quarantine_after.as_secs();
        for open in unproven {
            let is_overdue = open.unproven_secs + elapsed_secs >= limit_secs;
            if open.state == MintTransactionState::Recorded && is_overdue {
                let quarantined = transitions::quarantine(&self.pool, open.number);
                let readings = self.within_limit(quarantined).await?;
                tracing::error!(
                    signature = %open.signature,
                    number = %open.number,
                    readings,
                    "mint transaction is quarantined: no endpoint can prove whether it landed; \
                     add an RPC endpoint with full history, or resolve it by hand"
                );
            }
        }
        Ok(())
    }

    async fn highest_finalized(&self) -> Option<u64> {
        let mut highest = None;
        for endpoint in self.endpoints.iter() {
            if let Ok(height) = endpoint.finalized_height().await {
                highest = highest.max(Some(height));
            }
        }
        highest
    }
}
