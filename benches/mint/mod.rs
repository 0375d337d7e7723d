//! `make bench-mint`: measures intake and the minting of a backlog, and compares it with the local chain alone.
//!
//! For each batch size: bulk and single submissions while minting is off, then the time until everything that waits is minted and
//! final, with the processor time of service, Postgres and chain, and what Postgres wrote. Then the same number of payments as
//! signed transactions, sent to a separate chain without a service: a lower bound. After each run the audit must hold.

mod load;
mod measure;
mod peer;
mod report;
mod run;
mod usage;

pub use run::run;

use std::path::PathBuf;

use clap::Args;

/// Measures how fast readings are stored and minted.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Readings of the backlog
    #[arg(long, default_value_t = 80_000)]
    pub readings: usize,
    /// Wallets, and meters, of the backlog
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub wallets: u32,
    /// Values of BLOCKCHAIN_MAX_BATCH_SIZE, separated by commas
    #[arg(long, default_value = "50,200", value_delimiter = ',')]
    pub batch_sizes: Vec<u32>,
    /// Rounds for each batch size; the report has the median and the range
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Clients that submit single readings, one request at a time each
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Seconds of single submissions
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// File for the figures, as JSON
    #[arg(long, default_value = "bench-mint.json")]
    pub out: PathBuf,
    /// Minutes after which the benchmark stops
    #[arg(long, default_value_t = 60)]
    pub minutes_max: u64,
}
