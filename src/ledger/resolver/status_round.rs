//! One round of the resolver: fetches the status of every transaction that is in time, newest first, and writes what changed.
//!
//! A transaction that is late leaves these rounds ([`late_round`](super::late_round)), so a round costs what is under way, no
//! matter how many transactions wait for a proof.

use std::time::Duration;

use sqlx::PgPool;

use super::first_failure::{FirstFailure, Rest, no_endpoint_answers};
use super::open_transactions::{self, OpenTransaction};
use super::resend::ResendQueue;
use super::signature_status::{self, Lookup, SIGNATURES_PER_CALL};
use super::status_changes::{MissedRounds, StatusChanges};
use super::status_writer::StatusWriter;
use crate::chain::Endpoints;
use crate::domain::{MintNumber, TxSignature};
use crate::ledger::error::LedgerError;
use crate::ledger::proof::late;
use crate::periodic::{Periodic, RunError};

/// How long a transaction's status comes from a node's cache while the length of a slot is not measured yet: 150 blocks of 200 ms,
/// the shortest slots of any cluster. A status that is looked up elsewhere too soon costs a slower call, nothing else.
const RECENT_FOR_UNMEASURED: Duration = Duration::from_secs(30);

/// Runs the status rounds.
pub struct StatusRounds {
    pub writer: StatusWriter,
    pub resends: ResendQueue,
}

impl Periodic for StatusRounds {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.round().await?)
    }
}

impl StatusRounds {
    async fn round(&mut self) -> Result<(), LedgerError> {
        let pool = self.writer.pool.clone();
        let in_time = open_transactions::in_time(&pool);
        let open = self.writer.within_limit(in_time).await?;
        let mut failures = FirstFailure::default();
        let mut unseen = Vec::new();
        let mut missed = MissedRounds::default();
        for chunk in open.chunks(SIGNATURES_PER_CALL) {
            let round = self.resolve(chunk, &mut unseen, &mut missed).await;
            if round.as_ref().is_err_and(no_endpoint_answers) {
                let _ = failures.note(round);
                break;
            }
            if failures.note(round) == Rest::IsGivenUp {
                return failures.into_result();
            }
        }
        self.resends.offer(unseen, &self.writer.endpoints);
        let late = late_ones(&open, &missed, &self.writer.endpoints);
        let handed_over = self.hand_over(&pool, &late).await;
        let _ = failures.note(handed_over);
        failures.into_result()
    }

    async fn hand_over(&self, pool: &PgPool, late: &[MintNumber]) -> Result<(), LedgerError> {
        if late.is_empty() {
            return Ok(());
        }
        let handed_over = late::hand_over(pool, late);
        Ok(self.writer.within_limit(handed_over).await?)
    }

    /// Fetches the statuses of some transactions and writes what they change.
    async fn resolve(
        &mut self,
        chunk: &[OpenTransaction],
        unseen: &mut Vec<OpenTransaction>,
        missed: &mut MissedRounds,
    ) -> Result<(), LedgerError> {
        let signatures: Vec<TxSignature> = chunk.iter().map(|open| open.signature).collect();
        let (endpoints, genesis) = (&self.writer.endpoints, &self.writer.genesis_hash);
        let found =
            signature_status::fetch(endpoints, genesis, &signatures, Lookup::Recent).await?;
        let mut changes = StatusChanges::default();
        for (open, status) in chunk.iter().zip(found) {
            changes.classify(open, status, missed);
        }
        let written = self.writer.write(&changes).await;
        unseen.extend(changes.to_send);
        written
    }
}

/// Those whose blockhash can no longer be used, or that are too old for it; and confirmed ones that were not seen, which may be in
/// a history that the cache of recent statuses no longer holds.
fn late_ones(
    open: &[OpenTransaction],
    missed: &MissedRounds,
    endpoints: &Endpoints,
) -> Vec<MintNumber> {
    let height = endpoints.highest_height().unwrap_or_default();
    let life = endpoints.parameters().blockhash_life();
    let recent_for = life.unwrap_or(RECENT_FOR_UNMEASURED);
    open.iter()
        .filter(|open| {
            open.last_valid_block_height < height
                || open.age() >= recent_for
                || missed.includes(open)
        })
        .map(|open| open.number)
        .collect()
}
