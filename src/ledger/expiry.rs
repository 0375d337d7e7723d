//! Proof of death: rule 3 of the ledger.
//!
//! Only an unbroken chain of finalized blocks over a transaction's whole life that does not hold it makes it dead. One
//! scan serves all transactions that it covers.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::breaker::LedgerRow;
use super::open::{self, OpenTransaction};
use super::resolver::ResolverLimits;
use super::{LedgerError, transitions};
use crate::chain::{Endpoint, Endpoints, NoProof, scan_blocks};
use crate::db::within;
use crate::domain::MintTransactionState;

/// Block heights that one scan may span beyond the oldest transaction's life.
const HEIGHTS_PER_SCAN: u64 = 600;

/// Pause after a round whose scans came to nothing, doubled each time up to the limit: a hole is filled by a person, who should
/// not wait long afterwards.
const PAUSE_MIN: Duration = Duration::from_secs(4);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Looks for proofs, and counts the time without one.
pub(super) struct ExpiryProver<'a> {
    pool: &'a PgPool,
    endpoints: &'a Endpoints,
    limits: &'a ResolverLimits,
    last_round: Instant,
    /// No scan before this moment.
    scan_from: Instant,
    /// Zero while scans find what they look for.
    pause: Duration,
    scans_failed: bool,
}

impl<'a> ExpiryProver<'a> {
    pub(super) fn new(
        pool: &'a PgPool,
        endpoints: &'a Endpoints,
        limits: &'a ResolverLimits,
    ) -> ExpiryProver<'a> {
        ExpiryProver {
            pool,
            endpoints,
            limits,
            last_round: Instant::now(),
            scan_from: Instant::now(),
            pause: Duration::ZERO,
            scans_failed: false,
        }
    }

    /// One look at everything that has expired and was not seen on chain.
    pub(super) async fn round(&mut self) -> Result<(), LedgerError> {
        let elapsed_secs = self.last_round.elapsed().as_secs() as i64;
        let unseen: Vec<OpenTransaction> = self
            .in_time(open::open_transactions(self.pool))
            .await?
            .into_iter()
            .filter(|open| {
                matches!(
                    open.state,
                    MintTransactionState::Recorded | MintTransactionState::Quarantined
                )
            })
            .collect();
        let Some(oldest) = unseen.iter().map(|open| open.last_valid_block_height).min() else {
            self.last_round = Instant::now();
            return Ok(());
        };
        let genesis_hash = self.in_time(LedgerRow::read(self.pool)).await?.genesis_hash;
        let may_scan = Instant::now() >= self.scan_from;
        let mut answered = false;
        let mut remaining = unseen;
        for endpoint in self.endpoints.iter() {
            let Ok(height) = endpoint.finalized_height().await else {
                continue;
            };
            answered = true;
            if height <= oldest || !may_scan {
                continue;
            }
            if let Err(error) = endpoint.check_chain(&genesis_hash).await {
                tracing::warn!(%error, "an endpoint whose chain is not known proves nothing");
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

    async fn in_time<T, E: From<sqlx::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, answer).await
    }

    /// Scans with one endpoint, oldest transactions first. Gives back those that are not proven dead.
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
            let scan = match scan_blocks(endpoint, from_slot, lowest, highest).await {
                Ok(scan) => scan,
                Err(no_proof) => {
                    self.note_failure(&no_proof, group.len());
                    remaining.extend(group);
                    continue;
                }
            };
            if let Some(no_proof) = scan.first_hole() {
                self.note_failure(no_proof, group.len());
            }
            for open in group {
                if scan.proves_absent(&open.signature, open.last_valid_block_height) {
                    let marked = transitions::mark_dead_expired(self.pool, open.number);
                    let readings = self.in_time(marked).await?;
                    tracing::warn!(
                        signature = %open.signature,
                        number = open.number,
                        readings,
                        "mint transaction expired and is proven absent from the chain; its readings are minted anew"
                    );
                } else {
                    remaining.push(open);
                }
            }
        }
        Ok(remaining)
    }

    /// Told once for each stretch of scans that came to nothing, which get rarer: a scan reads hundreds of blocks.
    fn note_failure(&mut self, no_proof: &NoProof, transactions: usize) {
        if self.pause.is_zero() {
            tracing::warn!(
                %no_proof,
                transactions,
                "no proof yet whether expired mint transactions landed; asking again, less and less often"
            );
        } else {
            tracing::debug!(%no_proof, transactions, "still no proof");
        }
        self.scans_failed = true;
    }

    /// After a round with scans: the pause before the next ones.
    fn back_off(&mut self) {
        self.pause = if self.scans_failed {
            (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX)
        } else {
            Duration::ZERO
        };
        self.scans_failed = false;
        let jitter = rand::random_range(0.75..1.0);
        self.scan_from = Instant::now() + self.pause.mul_f64(jitter);
    }

    async fn count_unproven(
        &mut self,
        remaining: &[OpenTransaction],
        elapsed_secs: i64,
    ) -> Result<(), LedgerError> {
        if elapsed_secs == 0 {
            return Ok(());
        }
        self.last_round = Instant::now();
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
        let numbers: Vec<i64> = unproven.iter().map(|open| open.number).collect();
        self.in_time(open::add_unproven_secs(self.pool, &numbers, elapsed_secs))
            .await?;
        let limit = self.limits.quarantine_after.as_secs() as i64;
        for open in unproven {
            if open.state == MintTransactionState::Recorded
                && open.unproven_secs + elapsed_secs >= limit
            {
                let quarantined = transitions::quarantine(self.pool, open.number);
                let readings = self.in_time(quarantined).await?;
                tracing::error!(
                    signature = %open.signature,
                    number = open.number,
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
