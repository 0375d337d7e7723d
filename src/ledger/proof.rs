//! Proof of death: rule 3 of the ledger.
//!
//! Only an unbroken chain of finalized blocks over a transaction's whole life that does not hold it makes it dead. One
//! scan serves all transactions that it covers.

use std::time::Instant;

use sqlx::PgPool;

use super::breaker::LedgerRow;
use super::open::{self, OpenTransaction};
use super::resolver::ResolverLimits;
use super::{LedgerError, settle};
use crate::chain::{Endpoint, Endpoints, scan_blocks};
use crate::domain::MintTransactionState;

/// Block heights that one scan may span beyond the oldest transaction's life.
const HEIGHTS_PER_SCAN: u64 = 600;

/// Looks for proofs, and counts the time without one.
pub(super) struct Undertaker<'a> {
    pool: &'a PgPool,
    endpoints: &'a Endpoints,
    limits: &'a ResolverLimits,
    last_round: Instant,
}

impl<'a> Undertaker<'a> {
    pub(super) fn new(
        pool: &'a PgPool,
        endpoints: &'a Endpoints,
        limits: &'a ResolverLimits,
    ) -> Undertaker<'a> {
        Undertaker {
            pool,
            endpoints,
            limits,
            last_round: Instant::now(),
        }
    }

    /// One look at everything that has expired and was not seen on chain.
    pub(super) async fn round(&mut self) -> Result<(), LedgerError> {
        let elapsed_secs = self.last_round.elapsed().as_secs() as i64;
        let unseen: Vec<OpenTransaction> = open::open_transactions(self.pool)
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
        let genesis_hash = LedgerRow::read(self.pool).await?.genesis_hash;
        let mut answered = false;
        let mut remaining = unseen;
        for endpoint in self.endpoints.iter() {
            let Ok(height) = endpoint.finalized_height().await else {
                continue;
            };
            answered = true;
            if height <= oldest {
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
        if answered {
            self.count_unproven(&remaining, elapsed_secs).await?;
        }
        Ok(())
    }

    /// Scans with one endpoint, oldest transactions first. Gives back those that are not proven dead.
    async fn prove_with(
        &self,
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
                    tracing::warn!(
                        %no_proof,
                        transactions = group.len(),
                        "no proof yet whether expired mint transactions landed; asking again"
                    );
                    remaining.extend(group);
                    continue;
                }
            };
            for open in group {
                if scan.covers(open.last_valid_block_height) && !scan.holds(&open.signature) {
                    let readings = settle::bury_expired(self.pool, open.number).await?;
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
        open::add_unproven_secs(self.pool, &numbers, elapsed_secs).await?;
        let limit = self.limits.quarantine_after.as_secs() as i64;
        for open in unproven {
            if open.state == MintTransactionState::Recorded
                && open.unproven_secs + elapsed_secs >= limit
            {
                let readings = settle::quarantine(self.pool, open.number).await?;
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
