//! Collects readings into batches, and runs each batch through the pipeline.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::chain_handle::ChainHandle;
use super::context::{MintContext, MintLimits};
use super::defer_reason::DeferReason;
use super::pipeline;
use super::request::{BatchAnswer, MintOutcome, MintPermission, MintRequest};
use crate::chain::MintSigner;
use crate::coalesce::{CoalesceError, CoalesceLimits, Coalescer};

/// Mints readings by group commit. Clones share the batches.
#[derive(Clone)]
pub struct Minter {
    coalescer: Coalescer<MintRequest, BatchAnswer>,
}

impl Minter {
    /// Batches run on `tracker`, sends too: waiting for it drains everything that was begun.
    pub fn start(
        pool: PgPool,
        chain: ChainHandle,
        signer: MintSigner,
        limits: MintLimits,
        tracker: &TaskTracker,
    ) -> Minter {
        let coalesce = CoalesceLimits {
            max_items: limits.max_batch_readings,
            linger: limits.linger,
            queue: limits.queue,
            concurrency: limits.concurrent_batches,
        };
        let context = Arc::new(MintContext {
            pool,
            chain,
            signer,
            in_flight: Arc::new(Semaphore::new(limits.concurrent_batches)),
            limits,
            tracker: tracker.clone(),
        });
        let coalescer = Coalescer::start("mint", coalesce, tracker, move |requests| {
            let context = Arc::clone(&context);
            async move { answer_all(&context, requests).await }
        });
        Minter { coalescer }
    }

    /// Mints one reading together with whatever else arrives. Dropping this future does not stop the
    /// reading from being minted.
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
                    return MintOutcome::Deferred(DeferReason::QueueFull);
                }
                Err(CoalesceError::Closed) => {
                    return MintOutcome::Deferred(DeferReason::ShuttingDown);
                }
                Err(CoalesceError::Failed) => {
                    return MintOutcome::Deferred(DeferReason::BatchLost);
                }
            }
        }
    }

    /// Takes no more readings; batches that were begun are finished.
    pub fn close(&self) {
        self.coalescer.close();
    }
}

/// Runs each reading once, so that all callers of one reading get its one answer.
async fn answer_all(context: &MintContext, requests: Vec<MintRequest>) -> Vec<BatchAnswer> {
    let mut single: HashMap<Uuid, MintRequest> = HashMap::with_capacity(requests.len());
    for request in &requests {
        let known = single.entry(request.reading).or_insert(*request);
        known.carried |= request.carried;
        known.permission = known.permission.max(request.permission);
    }
    let answers = pipeline::run(context, single.into_values().collect()).await;
    requests
        .iter()
        .map(|request| {
            answers
                .get(&request.reading)
                .cloned()
                .unwrap_or_else(|| BatchAnswer::Done(MintOutcome::Deferred(DeferReason::NoAnswer)))
        })
        .collect()
}
