//! Gives handlers the chain and the state of minting.

use std::sync::Arc;
use std::time::Duration;

use solana_sdk::pubkey::Pubkey;

use crate::chain::{CircuitBreaker, Endpoints, FeeBudget};
use crate::config::EffectiveConfig;
use crate::mint::Estimator;
use crate::periodic::TaskList;

/// The chain, to look up wallets and transactions.
#[derive(Clone)]
pub struct ChainAccess {
    pub endpoints: Endpoints,
    /// This service's token.
    pub mint: Pubkey,
}

/// The parts of this process that the status page shows, and the estimator of a dry run.
#[derive(Clone)]
pub struct MintingStatus {
    /// Whether this process may mint.
    pub circuit_breaker: CircuitBreaker,
    /// The amount that the fee payer can spend.
    pub fee_budget: FeeBudget,
    /// Estimates the cost of minting.
    pub estimator: Estimator,
    pub settings: Arc<ShownSettings>,
    /// The periodic tasks of this process.
    pub periodic_tasks: TaskList,
}

/// Settings that the status page shows.
pub struct ShownSettings {
    /// TOKENIZATION_POLLING_INTERVAL_SECS
    pub polling_interval_secs: u64,
    /// TOKENIZATION_BATCH_SIZE
    pub batch_size: u32,
    /// TOKENIZATION_TRANSACTION_TIMEOUT_SECS
    pub transaction_timeout: Duration,
    /// All of them, secrets masked.
    pub all: EffectiveConfig,
}
