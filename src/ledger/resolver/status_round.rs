//! One round of the Resolver: fetches the status of every open transaction, and writes what changed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::failed_on_chain::end_failed;
use super::limits::ResolverLimits;
use super::open_transactions::{self, OpenTransaction};
use super::resend::ResendQueue;
use super::signature_status::{self, Lookup, SIGNATURES_PER_CALL, SignatureStatus};
use super::status_changes::{MissedRounds, StatusChanges};
use crate::chain::Endpoints;
use crate::db::within;
use crate::domain::TxSignature;
use crate::ledger::error::LedgerError;
use crate::ledger::transitions::{self, Final, Landed};
use crate::periodic::{Periodic, RunError};

/// How long a transaction's status comes from a node's cache while the length of a slot is not measured yet: 150 blocks of 200 ms,
/// the shortest slots of any cluster. A status that is looked up elsewhere too soon costs a slower call, nothing else.
const RECENT_FOR_UNMEASURED: Duration = Duration::from_secs(30);
/// A block's time is for people to read: finality is stored without it when it does not come within this time.
const BLOCK_TIME_LIMIT: Duration = Duration::from_secs(5);
const BLOCK_TIMES_AT_ONCE: usize = 16;
/// Transactions confirmed in one database transaction: bounds how long their readings' events wait for each other.
const CONFIRMED_AT_ONCE: usize = 64;

pub struct StatusRounds {
    pub pool: PgPool,
    pub endpoints: Endpoints,
    pub genesis_hash: Hash,
    pub mint: Pubkey,
    pub limits: ResolverLimits,
    pub missed: MissedRounds,
    pub resends: ResendQueue,
}

impl Periodic for StatusRounds {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.round().await?)
    }
}

impl StatusRounds {
    async fn round(&mut self) -> Result<(), LedgerError> {
        let open = self
            .within_limit(open_transactions::open_transactions(&self.pool))
            .await?;
        self.missed.retain(&open);
        self.resends.retain(&open);
        let mut unseen = Vec::new();
        for chunk in open.chunks(SIGNATURES_PER_CALL) {
            let mut changes = StatusChanges::default();
            for (open, status) in self.fetch_statuses(chunk).await? {
                changes.classify(open, status, &mut self.missed);
            }
            self.write(&changes).await?;
            unseen.extend(changes.to_send);
        }
        self.resends.offer(unseen);
        Ok(())
    }

    async fn within_limit<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, query).await
    }

    /// Young transactions come from one endpoint's cache; old ones, and confirmed ones that were missed, from history. Nodes cache
    /// statuses for 300 slots, twice as long as a blockhash lives.
    async fn fetch_statuses<'a>(
        &self,
        chunk: &'a [OpenTransaction],
    ) -> Result<Vec<(&'a OpenTransaction, SignatureStatus)>, LedgerError> {
        let mut statuses: Vec<(&OpenTransaction, SignatureStatus)> =
            Vec::with_capacity(chunk.len());
        let life = self.endpoints.parameters().blockhash_life();
        let recent_for = life.unwrap_or(RECENT_FOR_UNMEASURED);
        let (recent, old): (Vec<_>, Vec<_>) = chunk
            .iter()
            .partition(|open| open.age() < recent_for && !self.missed.includes(open));
        for (group, lookup) in [(recent, Lookup::Recent), (old, Lookup::History)] {
            if group.is_empty() {
                continue;
            }
            let signatures: Vec<TxSignature> = group.iter().map(|open| open.signature).collect();
            let found =
                signature_status::fetch(&self.endpoints, &self.genesis_hash, &signatures, lookup)
                    .await?;
            statuses.extend(group.into_iter().zip(found));
        }
        Ok(statuses)
    }

    async fn write(&self, changes: &StatusChanges) -> Result<(), LedgerError> {
        for landed in changes.confirmed.chunks(CONFIRMED_AT_ONCE) {
            self.within_limit(transitions::confirm(&self.pool, landed))
                .await?;
        }
        self.write_finalized(&changes.finalized).await?;
        if !changes.forked.is_empty() {
            let forked = transitions::fork(&self.pool, &changes.forked);
            let readings = self.within_limit(forked).await?;
            tracing::warn!(
                transactions = changes.forked.len(),
                readings,
                "confirmed mint transactions vanished in a fork; the same bytes are sent again"
            );
        }
        for (number, error) in &changes.failed {
            let ended = end_failed(&self.pool, &self.mint, &self.limits, *number, error);
            let readings = ended.await?;
            tracing::warn!(%number, %error, readings, "mint transaction failed on chain");
        }
        Ok(())
    }

    async fn write_finalized(&self, finalized: &[Landed]) -> Result<(), LedgerError> {
        if finalized.is_empty() {
            return Ok(());
        }
        let block_times = self.block_times(finalized).await;
        let ended: Vec<Final> = finalized
            .iter()
            .map(|landed| Final {
                landed: *landed,
                block_time: block_times.get(&landed.slot).copied(),
            })
            .collect();
        for ended in ended.chunks(CONFIRMED_AT_ONCE) {
            self.within_limit(transitions::finalize(&self.pool, ended))
                .await?;
        }
        Ok(())
    }

    /// Seconds since 1970, by slot. A time that no endpoint reports soon is left out, not guessed.
    async fn block_times(&self, finalized: &[Landed]) -> HashMap<u64, i64> {
        let slots: HashSet<u64> = finalized.iter().map(|landed| landed.slot).collect();
        let rpc = self.endpoints.preferred().hot();
        futures_util::stream::iter(slots)
            .map(|slot| async move {
                let fetched = tokio::time::timeout(BLOCK_TIME_LIMIT, rpc.get_block_time(slot));
                let block_time = fetched.await.ok()?.ok()?;
                Some((slot, block_time))
            })
            .buffer_unordered(BLOCK_TIMES_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}
