//! Dependencies and limits of the job handlers.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::finished_jobs::FinishedJobs;
use crate::chain::{Cause, CircuitBreaker};
use crate::mint::Minter;

/// The dependencies and limits that all handlers of a process share.
pub struct QueueContext {
    pub pool: PgPool,
    /// For connections that hold a lock.
    pub connect: PgConnectOptions,
    pub minter: Minter,
    /// Whether the state of the chain lets anything be minted.
    pub circuit_breaker: CircuitBreaker,
    /// Cancelled when this process drains: handlers end, and none waits for the circuit breaker any longer.
    pub stop: CancellationToken,
    /// Limit of one database transaction.
    pub transaction_limit: Duration,
    /// Limit of one `MintReading` run.
    pub job_limit: Duration,
    /// Limit of one sweep.
    pub sweep_limit: Duration,
    /// Readings that a batch claims per step.
    pub sweep_batch_size: u16,
    pub sweep_every_secs: u64,
    pub reading_max_age: Duration,
    /// `MintReading` jobs that run at once: enough to fill all batches in flight.
    pub concurrency: usize,
    /// For the last line of the log.
    pub finished_jobs: FinishedJobs,
}

/// How long a job keeps its place in the worker while the circuit breaker is open. All places are taken then, so the backlog
/// stays due and untouched and continues the moment the breaker closes. No longer, so that another process, whose breaker may
/// be closed, gets the job.
pub(super) const CIRCUIT_WAIT: Duration = Duration::from_secs(10);

impl QueueContext {
    /// Waits for the circuit breaker to close, no longer than `limit`. `Err`: why minting cannot succeed now.
    pub async fn wait_for_circuit(&self, limit: Duration) -> Result<(), Cause> {
        tokio::select! {
            closed = self.circuit_breaker.until_closed(limit) => closed,
            () = self.stop.cancelled() => self.circuit_breaker.view().allows_minting(),
        }
    }

    /// Pages of a batch that are in the minter at once: together no more than fill all batches in flight.
    pub fn pages_at_once(&self) -> usize {
        (self.concurrency / usize::from(self.sweep_batch_size.max(1))).max(1)
    }
}
