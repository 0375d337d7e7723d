//! Collects readings into batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::batch;
use super::chain_side::ChainSide;
use crate::chain::MintSigner;
use crate::coalesce::{CoalesceError, CoalesceLimits, Coalescer};
use crate::domain::{BaseUnits, ReadingState};
use crate::ledger::RetrySchedule;

/// Settings of the Minter.
#[derive(Clone, Debug)]
pub struct MintLimits {
    /// Readings per batch (`BLOCKCHAIN_MAX_BATCH_SIZE`).
    pub max_batch_readings: usize,
    /// Base units per transaction (`BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION`).
    pub max_base_units_per_transaction: BaseUnits,
    /// Batches collected, or with transactions being sent, at once (`BLOCKCHAIN_CONCURRENT_BATCHES`).
    pub concurrent_batches: usize,
    /// How long the first reading of a batch waits for others (`MINT_LINGER_MS`).
    pub linger: Duration,
    /// Callers that may wait.
    pub queue: usize,
    /// Limit of one send, and of one transaction of the database: it ends the wait, never what was sent or asked.
    pub transaction_limit: Duration,
    pub schedule: RetrySchedule,
}

/// On whose word a reading is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MintPermission {
    /// A job or a sweep: not before it is due, and not while an admin's setting holds it back.
    WhenDue,
    /// An admin's trigger: also before a backoff is over, and while auto-mint is off.
    Now,
}

/// What became of a reading that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintOutcome {
    /// Recorded by this batch and on its way.
    Submitted,
    /// Somebody else has it, or it is paid already.
    Already(ReadingState),
    /// Pending, but auto-mint is off, or its meter is not rolled out yet.
    Held,
    /// Pending, but its backoff is not over.
    NotDue(DateTime<Utc>),
    /// Refused now; tried again then.
    RetryAt(DateTime<Utc>),
    /// Refused for good, until an admin retries it.
    Failed,
    /// Nothing is wrong with the reading: chain, database or breaker do not let it be minted now.
    NotNow(String),
    /// Nothing is wrong with the reading: the fee payer cannot pay for its wallet's new token account now. Others can be paid.
    AwaitsFunds(String),
    /// There is no such reading.
    Unknown,
}

/// What one caller hands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintRequest {
    pub reading: Uuid,
    pub permission: MintPermission,
    /// It has already waited for one more linger, so that transactions leave full under load.
    pub carried: bool,
}

/// What a batch says of one request.
#[derive(Clone, Debug)]
pub(super) enum BatchAnswer {
    Done(MintOutcome),
    /// It would have left in a transaction that is not full while others filled theirs: hand it in once more.
    Carry,
}

/// What minting needs of the chain.
#[derive(Clone)]
pub struct MintTools {
    pub chain: ChainSide,
    pub signer: MintSigner,
}

/// Everything that a batch works with.
pub(super) struct Workshop {
    pub pool: PgPool,
    pub tools: MintTools,
    pub limits: MintLimits,
    pub tracker: TaskTracker,
    /// One permit for each batch that is being made or sent.
    pub in_flight: Arc<Semaphore>,
}

/// Mints readings by group commit. Clones share the batches.
#[derive(Clone)]
pub struct Minter {
    coalescer: Coalescer<MintRequest, BatchAnswer>,
}

impl Minter {
    /// Batches run on `tracker`, sends too: waiting for it drains everything that was begun.
    pub fn start(
        pool: PgPool,
        tools: MintTools,
        limits: MintLimits,
        tracker: &TaskTracker,
    ) -> Minter {
        let coalesce = CoalesceLimits {
            max_items: limits.max_batch_readings,
            linger: limits.linger,
            queue: limits.queue,
            concurrency: limits.concurrent_batches,
        };
        let workshop = Arc::new(Workshop {
            pool,
            tools,
            in_flight: Arc::new(Semaphore::new(limits.concurrent_batches)),
            limits,
            tracker: tracker.clone(),
        });
        let coalescer = Coalescer::start("mint", coalesce, tracker, move |requests| {
            let workshop = Arc::clone(&workshop);
            async move { answer_all(&workshop, requests).await }
        });
        Minter { coalescer }
    }

    /// Mints one reading together with whatever else arrives. A caller that goes away costs nobody anything.
    pub async fn mint(&self, reading: Uuid, permission: MintPermission) -> MintOutcome {
        let mut request = MintRequest {
            reading,
            permission,
            carried: false,
        };
        loop {
            match self.coalescer.call(request).await {
                Ok(BatchAnswer::Done(outcome)) => return outcome,
                Ok(BatchAnswer::Carry) => request.carried = true,
                Err(CoalesceError::Full) => {
                    return MintOutcome::NotNow("more readings wait than the Minter takes".into());
                }
                Err(CoalesceError::Closed) => {
                    return MintOutcome::NotNow("this process is shutting down".into());
                }
                Err(CoalesceError::Failed) => {
                    return MintOutcome::NotNow("the batch was lost by a defect".into());
                }
            }
        }
    }

    /// Takes no more readings; batches that were begun are finished.
    pub fn close(&self) {
        self.coalescer.close();
    }
}

/// Removes doubles by reading, so that all callers of one reading get its one answer.
async fn answer_all(workshop: &Workshop, requests: Vec<MintRequest>) -> Vec<BatchAnswer> {
    let mut single: HashMap<Uuid, MintRequest> = HashMap::with_capacity(requests.len());
    for request in &requests {
        let known = single.entry(request.reading).or_insert(*request);
        known.carried |= request.carried;
        known.permission = known.permission.max(request.permission);
    }
    let answers = batch::run(workshop, single.into_values().collect()).await;
    requests
        .iter()
        .map(|request| {
            answers.get(&request.reading).cloned().unwrap_or_else(|| {
                BatchAnswer::Done(MintOutcome::NotNow("the batch gave no answer".into()))
            })
        })
        .collect()
}
