//! Settings and handles that all pipeline steps share.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::chain_handle::ChainHandle;
use super::defer_reason::DeferReason;
use crate::chain::MintSigner;
use crate::db;
use crate::domain::{BaseUnits, COMPUTE_UNITS_MAX, PackLimits, TransactionTerms};
use crate::ledger::RetrySchedule;

/// Settings of the minter.
#[derive(Clone, Debug)]
pub struct MintLimits {
    /// Readings per batch (`BLOCKCHAIN_MAX_BATCH_SIZE`).
    pub max_batch_readings: usize,
    /// Base units per transaction (`BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION`).
    pub max_base_units_per_transaction: BaseUnits,
    /// Batches collected, or with transactions being sent, at once (`BLOCKCHAIN_CONCURRENT_BATCHES`).
    pub concurrent_batches: usize,
    /// Time for which the first reading of a batch waits for others (`MINT_LINGER_MS`).
    pub linger: Duration,
    /// Callers that may wait.
    pub queue: usize,
    /// Limit of one send, and of one database transaction. It ends the wait; it does not undo what was sent.
    pub transaction_limit: Duration,
    pub schedule: RetrySchedule,
}

/// Shared by all batches of one minter.
pub(super) struct MintContext {
    pub pool: PgPool,
    pub chain: ChainHandle,
    pub signer: MintSigner,
    pub limits: MintLimits,
    pub tracker: TaskTracker,
    /// One permit for each batch that is being made or sent.
    pub in_flight: Arc<Semaphore>,
}

impl MintContext {
    /// Waits for the database no longer than one transaction may take: a session that hangs must not keep this batch's
    /// permit indefinitely.
    pub async fn in_time<T, E: Into<DeferReason>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, DeferReason> {
        db::within(self.limits.transaction_limit, async {
            answer.await.map_err(E::into)
        })
        .await
    }

    /// Limits of one transaction of these terms.
    pub fn pack_limits(&self, terms: TransactionTerms) -> PackLimits {
        PackLimits {
            format: terms.format,
            max_readings: self.limits.max_batch_readings,
            max_base_units: self.limits.max_base_units_per_transaction,
            max_bytes: terms.format.bytes_max(),
            max_compute_units: COMPUTE_UNITS_MAX,
            separate_fee_payer: self.signer.has_separate_fee_payer(),
            priced: !terms.price.is_zero(),
        }
    }
}
