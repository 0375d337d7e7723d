//! Writes what one round's statuses change.
//!
//! Invariant: a change that cannot be written keeps no other from being written.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::failed_on_chain::end_failed;
use super::first_failure::{FirstFailure, Rest};
use super::limits::ResolverLimits;
use super::status_changes::StatusChanges;
use crate::chain::Endpoints;
use crate::db::{ErrorClass, within};
use crate::ledger::error::LedgerError;
use crate::ledger::transitions::{self, Final, Landed};

/// A block's time is for people to read: finality is stored without it when it does not come within this time.
const BLOCK_TIME_LIMIT: Duration = Duration::from_secs(5);
const BLOCK_TIMES_AT_ONCE: usize = 16;
/// Transactions confirmed in one database transaction: bounds how long their readings' events wait for each other.
const CONFIRMED_AT_ONCE: usize = 64;

#[derive(Clone)]
pub struct StatusWriter {
    pub pool: PgPool,
    pub endpoints: Endpoints,
    pub genesis_hash: Hash,
    pub mint: Pubkey,
    pub limits: ResolverLimits,
}

impl StatusWriter {
    /// Writes every change that can be written; the error is the first failure.
    pub async fn write(&self, changes: &StatusChanges) -> Result<(), LedgerError> {
        let mut failures = FirstFailure::default();
        for landed in changes.confirmed.chunks(CONFIRMED_AT_ONCE) {
            if failures.note(self.confirm(landed).await) == Rest::IsGivenUp {
                return failures.into_result();
            }
        }
        let block_times = self.block_times(&changes.finalized).await;
        let finalized: Vec<Final> = changes
            .finalized
            .iter()
            .map(|landed| Final {
                landed: *landed,
                block_time: block_times.get(&landed.slot).copied(),
            })
            .collect();
        for ended in finalized.chunks(CONFIRMED_AT_ONCE) {
            if failures.note(self.finalize(ended).await) == Rest::IsGivenUp {
                return failures.into_result();
            }
        }
        if failures.note(self.fork(changes).await) == Rest::IsGivenUp {
            return failures.into_result();
        }
        for (number, error) in &changes.failed {
            let ended = end_failed(&self.pool, &self.mint, &self.limits, *number, error).await;
            let ended = ended.map(|readings| {
                tracing::warn!(%number, %error, readings, "mint transaction failed on chain");
            });
            if failures.note(ended) == Rest::IsGivenUp {
                break;
            }
        }
        failures.into_result()
    }

    pub async fn within_limit<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, query).await
    }

    /// All together; if the database refuses a row of one, each alone.
    async fn confirm(&self, landed: &[Landed]) -> Result<(), LedgerError> {
        let confirmed = transitions::confirm(&self.pool, landed);
        let outcome = self.within_limit(confirmed).await;
        if !refuses_one_of(landed.len(), &outcome) {
            return Ok(outcome.map(drop)?);
        }
        let mut failures = FirstFailure::default();
        for one in landed {
            let confirmed = transitions::confirm(&self.pool, std::slice::from_ref(one));
            let outcome = self.within_limit(confirmed).await;
            let outcome = outcome.map(drop).map_err(LedgerError::from);
            if failures.note(outcome) == Rest::IsGivenUp {
                break;
            }
        }
        failures.into_result()
    }

    /// As [`Self::confirm`].
    async fn finalize(&self, ended: &[Final]) -> Result<(), LedgerError> {
        let outcome = self
            .within_limit(transitions::finalize(&self.pool, ended))
            .await;
        if !refuses_one_of(ended.len(), &outcome) {
            return Ok(outcome.map(drop)?);
        }
        let mut failures = FirstFailure::default();
        for one in ended {
            let finalized = transitions::finalize(&self.pool, std::slice::from_ref(one));
            let outcome = self.within_limit(finalized).await;
            let outcome = outcome.map(drop).map_err(LedgerError::from);
            if failures.note(outcome) == Rest::IsGivenUp {
                break;
            }
        }
        failures.into_result()
    }

    async fn fork(&self, changes: &StatusChanges) -> Result<(), LedgerError> {
        if changes.forked.is_empty() {
            return Ok(());
        }
        let forked = transitions::fork(&self.pool, &changes.forked);
        let readings = self.within_limit(forked).await?;
        tracing::warn!(
            transactions = changes.forked.len(),
            readings,
            "confirmed mint transactions vanished in a fork; the same bytes are sent again"
        );
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

fn refuses_one_of<T>(count: usize, outcome: &sqlx::Result<T>) -> bool {
    let refuses = |error| ErrorClass::of(error) == ErrorClass::BadRow;
    count > 1 && outcome.as_ref().err().is_some_and(refuses)
}
