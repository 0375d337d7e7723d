//! Settings of intake, minting and ledger: from an accepted reading to a finalized transaction.

use std::time::Duration;

use clap::Args;

use super::setting::{common, text, whole};
use crate::domain::{ComputeUnitPrice, PriorityFeePolicy, TransactionFormatPolicy};

/// Group commit of readings.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Intake", mut_args(common))]
pub struct IntakeConfig {
    /// Readings that one database transaction stores at most: a whole number from 1 to 1000
    #[arg(id = "INTAKE_BATCH_SIZE", env, long = "intake-batch-size", default_value = "500", value_parser = whole(1..=1000u16))]
    pub batch_size: u16,

    /// How long a reading waits for others to share its database transaction, in milliseconds: a whole number from 0 to 100
    #[arg(id = "INTAKE_LINGER_MS", env, long = "intake-linger-ms", default_value = "2", value_parser = whole(0..=100u64).map(Duration::from_millis))]
    pub linger: Duration,
}

/// Mint batches, transactions and their fees.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Blockchain", mut_args(common))]
pub struct BlockchainConfig {
    /// How long a reading waits for others to share its mint batch, in milliseconds: a whole number from 0 to 1000
    #[arg(id = "MINT_LINGER_MS", env, long = "mint-linger-ms", default_value = "20", value_parser = whole(0..=1000u64).map(Duration::from_millis))]
    pub mint_linger: Duration,

    /// Readings per mint batch: a whole number from 1 to 1000
    #[arg(id = "BLOCKCHAIN_MAX_BATCH_SIZE", env, long = "blockchain-max-batch-size", default_value = "50", value_parser = whole(1..=1000u16))]
    pub max_batch_size: u16,

    /// Base units that one transaction may mint in total: a whole number from 1 to 18446744073709551615
    #[arg(id = "BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION", env, long = "blockchain-max-tokens-per-transaction", default_value = "1000000000000", value_parser = whole(1..=u64::MAX))]
    pub max_tokens_per_transaction: u64,

    /// Mint batches processed at the same time: a whole number from 1 to 64
    #[arg(id = "BLOCKCHAIN_CONCURRENT_BATCHES", env, long = "blockchain-concurrent-batches", default_value = "5", value_parser = whole(1..=64u8))]
    pub concurrent_batches: u8,

    /// Format of mint transactions, where auto is v1 if the RPC endpoint takes it and legacy if not: auto, v1 or legacy
    #[arg(id = "BLOCKCHAIN_TRANSACTION_FORMAT", env, long = "blockchain-transaction-format", default_value = "auto", value_parser = text::<TransactionFormatPolicy>("auto, v1 or legacy"))]
    pub transaction_format: TransactionFormatPolicy,

    /// Price that a transaction offers per compute unit, above the base fee, in millionths of a lamport: none, fixed:MICROLAMPORTS (1 to 1000000000) or percentile:P of the prices in recent slots (1 to 100)
    #[arg(id = "BLOCKCHAIN_PRIORITY_FEE", env, long = "blockchain-priority-fee", default_value = "none", value_parser = text::<PriorityFeePolicy>("none, fixed:MICROLAMPORTS (1 to 1000000000) or percentile:P of the prices in recent slots (1 to 100)"))]
    pub priority_fee: PriorityFeePolicy,

    /// Highest price offered per compute unit, in millionths of a lamport: a whole number from 1 to 1000000000
    #[arg(id = "BLOCKCHAIN_PRIORITY_FEE_MAX_MICROLAMPORTS", env, long = "blockchain-priority-fee-max-microlamports", default_value = "1000000", value_parser = whole(1..=ComputeUnitPrice::MAX.micro_lamports()).map(ComputeUnitPrice::from_micro_lamports))]
    pub priority_fee_max: ComputeUnitPrice,
}

/// The outcome of mint transactions after they were sent.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Ledger", mut_args(common))]
pub struct LedgerConfig {
    /// Seconds after its expiry at which a transaction without a proven outcome is quarantined: a whole number from 1 to 604800
    #[arg(id = "LEDGER_QUARANTINE_AFTER_SECS", env, long = "ledger-quarantine-after-secs", default_value = "3600", value_parser = whole(1..=604_800u64).map(Duration::from_secs))]
    pub quarantine_after: Duration,
}
