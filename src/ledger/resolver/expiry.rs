//! Proves that expired transactions did not land: rule 3 of the ledger. This file decides that a transaction is dead because it
//! expired.
//!
//! Invariant: only an unbroken run of finalized blocks over a transaction's whole life that does not hold its signature makes
//! it dead ([`proof`](crate::ledger::proof)); a clock or a "not found" never does. What was read is stored block by block, so a
//! round that is interrupted continues where it was.
//!
//! Reading begins once the blockhash can no longer be used, not before: a transaction that is late mostly lands after all, and
//! each block costs a call.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use sqlx::PgPool;

use super::first_failure::{FirstFailure, Rest};
use super::limits::ResolverLimits;
use crate::chain::{
    BlockRun, BlockScan, BlockhashLife, ChainError, Endpoint, Endpoints, NoProof, RpcClass,
    RunStore, ScanError, ScanOutcome,
};
use crate::db::within;
use crate::domain::{Backoff, Jitter, MintNumber};
use crate::ledger::breaker::ledger_row::LedgerRow;
use crate::ledger::error::LedgerError;
use crate::ledger::proof::late::{self, DueProof, Pause};
use crate::ledger::proof::run_store::{self, EndpointRuns};
use crate::ledger::transitions;
use crate::periodic::{Periodic, RunError};

/// A search of one endpoint ends at the next block once it has taken this long, so that transactions that expired meanwhile get
/// their turn.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// Blocks until the last one that can hold a transaction is final under Tower (31 slots). With it, the first search finds them all.
const FINALITY_BLOCKS: u64 = 32;
/// Pause until the next search for the same transaction, after one that no endpoint could complete. Other endpoints in the
/// configuration make everything due at once.
const PROOF_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(4), Duration::from_secs(15 * 60))
        .with_jitter(Jitter::between(75, 100));
/// An endpoint in a longer pause is left out of a round.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Finished searches are cleared away after so many rounds without a search.
const PRUNE_EVERY_ROUNDS: u32 = 30;

/// Searches for proofs.
pub struct ExpiryProver {
    pool: PgPool,
    endpoints: Endpoints,
    limits: ResolverLimits,
    /// Whether the last search failed: it is logged when that changes.
    is_failing: bool,
    rounds_since_pruned: u32,
    /// The schedule was compared with the configured endpoints.
    endpoints_are_known: bool,
}

/// What a round knows of one transaction.
#[derive(Debug, Default)]
struct Search {
    proven: bool,
    /// Some endpoint may complete it in the next round.
    goes_on: bool,
    blocked: Option<NoProof>,
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
            is_failing: false,
            rounds_since_pruned: 0,
            endpoints_are_known: false,
        }
    }

    /// Searches once for every transaction whose proof is due.
    async fn round(&mut self) -> Result<(), LedgerError> {
        self.restart_with_other_endpoints().await?;
        let height = self.endpoints.highest_height().unwrap_or_default();
        let due = late::due_for_proof(&self.pool, height.saturating_sub(FINALITY_BLOCKS));
        let due = self.within_limit(due).await?;
        if due.is_empty() {
            return self.prune_at_times().await;
        }
        let row = self.within_limit(LedgerRow::read(&self.pool)).await?;
        let mut searches: HashMap<MintNumber, Search> = HashMap::new();
        let mut failures = FirstFailure::default();
        let endpoints = self.endpoints.clone();
        for endpoint in endpoints.iter() {
            if !endpoint.answers() || endpoint.paused_for(RpcClass::Background) > Some(PAUSE_MAX) {
                continue;
            }
            if let Err(error) = endpoint.check_chain(&row.genesis_hash).await {
                tracing::warn!(%error, "endpoint skipped in the search for proofs: its chain is not known");
                continue;
            }
            let searched = self
                .search_with(endpoint, &row.genesis_hash, &due, &mut searches)
                .await;
            if failures.note(searched) == Rest::IsGivenUp {
                break;
            }
            if due.iter().all(|due| is_proven(&searches, due)) {
                break;
            }
        }
        let noted = self.note_blocked(&due, &searches).await;
        let _ = failures.note(noted);
        let pruned = self.prune().await;
        let _ = failures.note(pruned);
        failures.into_result()
    }

    async fn within_limit<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, query).await
    }

    /// Once for each leader. Also schedules what a leader of the previous version has left without a schedule.
    async fn restart_with_other_endpoints(&mut self) -> Result<(), LedgerError> {
        if self.endpoints_are_known {
            return Ok(());
        }
        let mut fingerprints: Vec<&str> =
            self.endpoints.iter().map(Endpoint::fingerprint).collect();
        fingerprints.sort_unstable();
        let fingerprints = fingerprints.join(" ");
        self.within_limit(late::restart_if_others(&self.pool, &fingerprints))
            .await?;
        self.within_limit(late::schedule_missing(&self.pool))
            .await?;
        self.endpoints_are_known = true;
        Ok(())
    }

    fn store_of<'a>(&'a self, endpoint: &'a Endpoint) -> EndpointRuns<'a> {
        EndpointRuns {
            pool: &self.pool,
            fingerprint: endpoint.fingerprint(),
            limit: self.limits.transaction_limit,
        }
    }

    /// Reads what is lacking of one endpoint, transaction by transaction.
    async fn search_with(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
        due: &[DueProof],
        searches: &mut HashMap<MintNumber, Search>,
    ) -> Result<(), LedgerError> {
        let store = self.store_of(endpoint);
        let runs = store.load().await?;
        let mut scan = BlockScan::new(endpoint, store, runs, Instant::now() + SEARCH_TIME);
        let mut looked_at = HashSet::new();
        let mut failures = FirstFailure::default();
        for one in due {
            if is_proven(searches, one) {
                continue;
            }
            let life = BlockhashLife {
                slot: one.blockhash_slot,
                last_valid_block_height: one.last_valid_block_height,
            };
            let outcome = scan.search(&life).await;
            let search = searches.entry(one.number).or_default();
            match outcome {
                Ok(ScanOutcome::Covered(run)) => {
                    if looked_at.insert((run.first_slot, run.last_slot)) {
                        if let Err(error) = self.check_chain_again(endpoint, genesis_hash).await? {
                            let error = ScanError::Endpoint(error);
                            let ended = note_end_of_scan(
                                endpoint,
                                error,
                                scan.blocks_read(),
                                due,
                                searches,
                            );
                            let _ = failures.note(ended);
                            break;
                        }
                        let ended = self.end_absent(endpoint, &run, searches).await;
                        if failures.note(ended) == Rest::IsGivenUp {
                            break;
                        }
                    }
                    let found = self.found_in(endpoint, one).await?;
                    let search = searches.entry(one.number).or_default();
                    if !search.proven {
                        search.blocked = found;
                    }
                }
                Ok(ScanOutcome::NotYet) => search.goes_on = true,
                Ok(ScanOutcome::Blocked(no_proof)) => search.blocked = Some(no_proof),
                Ok(ScanOutcome::Unfinished) => {
                    search.goes_on = true;
                    break;
                }
                Err(error) => {
                    let ended =
                        note_end_of_scan(endpoint, error, scan.blocks_read(), due, searches);
                    let _ = failures.note(ended);
                    break;
                }
            }
        }
        tracing::debug!(
            endpoint = endpoint.name(),
            blocks = scan.blocks_read(),
            "searched for proofs"
        );
        failures.into_result()
    }

    /// Before what was read decides: the endpoint may have become a node of another chain meanwhile. If it has, its runs are
    /// dropped. The outer error is the database's.
    async fn check_chain_again(
        &self,
        endpoint: &Endpoint,
        genesis_hash: &str,
    ) -> Result<Result<(), ChainError>, LedgerError> {
        let checked = endpoint.check_chain(genesis_hash).await;
        if checked.as_ref().is_err_and(|error| !is_interruption(error)) {
            self.store_of(endpoint).forget().await?;
        }
        Ok(checked)
    }

    /// Marks all dead that this run of the endpoint proves absent.
    async fn end_absent(
        &self,
        endpoint: &Endpoint,
        run: &BlockRun,
        searches: &mut HashMap<MintNumber, Search>,
    ) -> Result<(), LedgerError> {
        let absent = self
            .within_limit(run_store::absent_from(&self.pool, run))
            .await?;
        let mut failures = FirstFailure::default();
        for absent in absent {
            if !run.covers(&absent.life()) {
                continue;
            }
            let fingerprint = endpoint.fingerprint();
            let dead = transitions::mark_dead_expired(&self.pool, absent.number, fingerprint);
            match self.within_limit(dead).await {
                // It has ended, or what proves it is no longer stored: the next round searches again.
                Ok(None) => {}
                Ok(Some(readings)) => {
                    searches.entry(absent.number).or_default().proven = true;
                    tracing::warn!(
                        signature = %absent.signature,
                        number = %absent.number,
                        readings,
                        "mint transaction expired and is proven absent from the chain; its readings are minted anew"
                    );
                }
                Err(error) => {
                    if failures.note(Err(error.into())) == Rest::IsGivenUp {
                        break;
                    }
                }
            }
        }
        failures.into_result()
    }

    /// Why a transaction is not proven absent although every block that could hold it was read: one of them holds it.
    async fn found_in(
        &self,
        endpoint: &Endpoint,
        one: &DueProof,
    ) -> Result<Option<NoProof>, LedgerError> {
        let found = run_store::found_in(&self.pool, &one.signature);
        let slot = self.within_limit(found).await?;
        Ok(slot.map(|slot| NoProof::Found {
            endpoint: endpoint.name().to_owned(),
            slot,
        }))
    }

    /// Postpones the next search for those that no endpoint can complete now.
    async fn note_blocked(
        &mut self,
        due: &[DueProof],
        searches: &HashMap<MintNumber, Search>,
    ) -> Result<(), LedgerError> {
        // One jitter for all, so that they stay together and share the calls.
        let random = rand::random();
        let (mut pauses, mut reasons) = (Vec::new(), Vec::new());
        for one in due {
            let Some(search) = searches.get(&one.number) else {
                continue;
            };
            let Some(no_proof) = search
                .blocked
                .as_ref()
                .filter(|_| !search.proven && !search.goes_on)
            else {
                continue;
            };
            let pause = PROOF_BACKOFF.delay(one.proofs_failed.0.saturating_add(1), random);
            pauses.push(Pause {
                number: one.number,
                secs: pause.as_secs_f64(),
            });
            reasons.push(no_proof.to_string());
        }
        self.log_change(reasons.first(), pauses.len());
        if pauses.is_empty() {
            return Ok(());
        }
        let noted = late::note_failed_proofs(&self.pool, &pauses, &reasons);
        Ok(self.within_limit(noted).await?)
    }

    /// One line when searches begin to fail, and one when none fails any more.
    fn log_change(&mut self, no_proof: Option<&String>, transactions: usize) {
        match no_proof {
            Some(no_proof) if !self.is_failing => tracing::warn!(
                no_proof,
                transactions,
                "no proof yet whether expired mint transactions landed; searching again, ever more rarely"
            ),
            Some(no_proof) => tracing::debug!(no_proof, transactions, "still no proof"),
            None if self.is_failing => tracing::info!("searches for proofs complete again"),
            None => {}
        }
        self.is_failing = no_proof.is_some();
    }

    /// While nothing is searched for, what other rounds left behind is cleared away at times.
    async fn prune_at_times(&mut self) -> Result<(), LedgerError> {
        self.rounds_since_pruned += 1;
        if self.rounds_since_pruned < PRUNE_EVERY_ROUNDS {
            return Ok(());
        }
        self.prune().await
    }

    async fn prune(&mut self) -> Result<(), LedgerError> {
        self.rounds_since_pruned = 0;
        Ok(self.within_limit(run_store::prune(&self.pool)).await?)
    }
}

fn is_proven(searches: &HashMap<MintNumber, Search>, due: &DueProof) -> bool {
    searches
        .get(&due.number)
        .is_some_and(|search| search.proven)
}

/// Whether the endpoint gave no answer, and may give one in the next round.
fn is_interruption(error: &ChainError) -> bool {
    matches!(
        error,
        ChainError::Unreachable { .. } | ChainError::RateLimited { .. }
    )
}

/// An endpoint that gave no answer is tried again in the next round, which continues where this one ended if it has read blocks;
/// one that cannot answer such calls has failed all that it was searched for.
fn note_end_of_scan(
    endpoint: &Endpoint,
    error: ScanError<sqlx::Error>,
    blocks_read: usize,
    due: &[DueProof],
    searches: &mut HashMap<MintNumber, Search>,
) -> Result<(), LedgerError> {
    let no_proof = match error {
        ScanError::Store(error) => return Err(error.into()),
        ScanError::Stale => {
            tracing::debug!(
                endpoint = endpoint.name(),
                "another process reads the same blocks"
            );
            return Ok(());
        }
        ScanError::Endpoint(error) if is_interruption(&error) => {
            tracing::debug!(%error, "the search for proofs is interrupted");
            if blocks_read > 0 {
                for one in due {
                    searches.entry(one.number).or_default().goes_on = true;
                }
            }
            return Ok(());
        }
        ScanError::Endpoint(error) => NoProof::Chain(error),
        ScanError::Contradiction(no_proof) => no_proof,
    };
    for one in due {
        let search = searches.entry(one.number).or_default();
        search.blocked.get_or_insert_with(|| no_proof.clone());
    }
    Ok(())
}
