//! Looks up transactions that are late in the endpoints' histories, ever more rarely, and writes what changed.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::first_failure::{FirstFailure, Rest, no_endpoint_answers};
use super::open_transactions::OpenTransaction;
use super::resend::ResendQueue;
use super::signature_status::{self, Lookup, SIGNATURES_PER_CALL, SignatureStatus};
use super::status_changes::{MissedRounds, StatusChanges};
use super::status_writer::StatusWriter;
use crate::domain::{Backoff, Jitter, MintNumber, MintTransactionState, TxSignature};
use crate::ledger::error::LedgerError;
use crate::ledger::proof::late::{self, DueLookUp, Pause};
use crate::periodic::{Periodic, RunError};

/// Pause until the same transaction is looked up again. What one endpoint lacks today it rarely shows tomorrow; other endpoints in
/// the configuration make everything due at once.
const LOOK_UP_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_secs(2), Duration::from_secs(15 * 60))
        .with_jitter(Jitter::between(75, 100));
/// At most, while it may still land or become final: people wait for it.
const LIVE_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A confirmed transaction that was not seen: the next look-ups decide whether it vanished in a fork.
const MISSED_PAUSE: Duration = Duration::from_secs(2);
/// No node keeps a status longer in its cache: 300 slots, of 400 ms or less, and as much again.
const CACHED_FOR_MAX: Duration = Duration::from_secs(240);
/// Schedules of transactions that have ended are deleted this often.
const DELETE_ENDED_EVERY: Duration = Duration::from_secs(30);

pub struct LateRounds {
    pub writer: StatusWriter,
    pub missed: MissedRounds,
    pub resends: ResendQueue,
    pub deleted_at: Option<Instant>,
}

impl Periodic for LateRounds {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.round().await?)
    }
}

impl LateRounds {
    async fn round(&mut self) -> Result<(), LedgerError> {
        self.delete_ended().await?;
        let pool = self.writer.pool.clone();
        let due = self
            .writer
            .within_limit(late::due_for_look_up(&pool))
            .await?;
        let mut failures = FirstFailure::default();
        let mut unseen = Vec::new();
        for chunk in due.chunks(SIGNATURES_PER_CALL) {
            let mut seen = HashSet::new();
            let round = self.look_up(chunk, &mut unseen, &mut seen).await;
            if round.as_ref().is_err_and(no_endpoint_answers) {
                // Nothing was looked up: it stays due.
                let _ = failures.note(round);
                break;
            }
            // Also after a failure, so that the transactions behind them have their turn.
            let pauses = self.pauses(chunk, &seen);
            let noted = late::note_look_ups(&pool, &pauses);
            let noted = self.writer.within_limit(noted).await;
            let _ = failures.note(round);
            if failures.note(noted.map_err(LedgerError::from)) == Rest::IsGivenUp {
                break;
            }
        }
        self.resends.offer(unseen, &self.writer.endpoints);
        failures.into_result()
    }

    async fn look_up(
        &mut self,
        chunk: &[DueLookUp],
        unseen: &mut Vec<OpenTransaction>,
        seen: &mut HashSet<MintNumber>,
    ) -> Result<(), LedgerError> {
        let found = match self.fetch(chunk, Lookup::History).await {
            Err(error) if !no_endpoint_answers(&error) => {
                self.look_up_recent(chunk, unseen, seen).await?;
                return Err(error);
            }
            found => found?,
        };
        let mut changes = StatusChanges::default();
        for (due, status) in chunk.iter().zip(found) {
            if status != SignatureStatus::NotSeen {
                seen.insert(due.open.number);
            }
            changes.classify(&due.open, status, &mut self.missed);
        }
        let written = self.writer.write(&changes).await;
        unseen.extend(changes.to_send);
        written
    }

    /// While no history can be looked up, what nodes still have in their caches is found all the same. What a cache lacks proves
    /// nothing here: it may have been dropped, so it does not count as missed.
    async fn look_up_recent(
        &mut self,
        chunk: &[DueLookUp],
        unseen: &mut Vec<OpenTransaction>,
        seen: &mut HashSet<MintNumber>,
    ) -> Result<(), LedgerError> {
        let recent: Vec<&DueLookUp> = chunk
            .iter()
            .filter(|due| due.open.age() < CACHED_FOR_MAX)
            .collect();
        if recent.is_empty() {
            return Ok(());
        }
        let statuses = self.fetch(recent.iter().copied(), Lookup::Recent).await?;
        let is_recorded = |open: &OpenTransaction| open.state == MintTransactionState::Recorded;
        let mut changes = StatusChanges::default();
        for (due, status) in recent.into_iter().zip(statuses) {
            if status != SignatureStatus::NotSeen {
                seen.insert(due.open.number);
                changes.classify(&due.open, status, &mut self.missed);
            } else if is_recorded(&due.open) {
                unseen.push(due.open.clone());
            }
        }
        self.writer.write(&changes).await
    }

    async fn fetch(
        &self,
        due: impl IntoIterator<Item = &DueLookUp>,
        lookup: Lookup,
    ) -> Result<Vec<SignatureStatus>, LedgerError> {
        let signatures: Vec<TxSignature> = due.into_iter().map(|due| due.open.signature).collect();
        let (endpoints, genesis) = (&self.writer.endpoints, &self.writer.genesis_hash);
        Ok(signature_status::fetch(endpoints, genesis, &signatures, lookup).await?)
    }

    /// One jitter for all, so that they stay together in one call.
    fn pauses(&self, chunk: &[DueLookUp], seen: &HashSet<MintNumber>) -> Vec<Pause> {
        let random = rand::random();
        let height = self.writer.endpoints.lowest_height().unwrap_or_default();
        chunk
            .iter()
            .map(|due| {
                let growing = LOOK_UP_BACKOFF.delay(due.look_ups.0.saturating_add(1), random);
                let may_change =
                    seen.contains(&due.open.number) || due.open.last_valid_block_height >= height;
                let pause = if self.missed.includes(&due.open) {
                    MISSED_PAUSE
                } else if may_change {
                    growing.min(LIVE_PAUSE_MAX)
                } else {
                    growing
                };
                Pause {
                    number: due.open.number,
                    secs: pause.as_secs_f64(),
                }
            })
            .collect()
    }

    async fn delete_ended(&mut self) -> Result<(), LedgerError> {
        let is_recent = |at: Instant| at.elapsed() < DELETE_ENDED_EVERY;
        if self.deleted_at.is_some_and(is_recent) {
            return Ok(());
        }
        self.deleted_at = Some(Instant::now());
        let deleted = late::delete_ended(&self.writer.pool);
        Ok(self.writer.within_limit(deleted).await?)
    }
}
