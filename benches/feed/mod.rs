//! `make bench-feed`: measures the cost of the feed, and compares it with servers that do less.
//!
//! Measured are the service as a process with its own Postgres and local chain; a bare server on the service's WebSocket layer,
//! as a lower bound; and nchan (nginx) if it is installed.

mod bare;
mod client;
mod figures;
mod run;
mod targets;
mod variant;

pub use bare::serve as serve_bare;
pub use run::run;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use variant::{Compression, TargetName};

/// Measures the event feed.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Connections that listen
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    /// Events per second, each to one owner
    #[arg(long, default_value_t = 1_000)]
    pub rate: usize,
    /// Seconds of each round at that rate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Rounds of each measurement; the report has the median and the range
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of the service's soak test with 1 % slow readers; 0: none
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub soak_seconds: u64,
    /// Request permessage-deflate: off, on or both
    #[arg(long, value_enum, default_value_t = CompressionOption::Both)]
    pub compression: CompressionOption,
    /// Servers to measure, separated by commas
    #[arg(
        long,
        value_enum,
        default_value = "service,bare,nchan",
        value_delimiter = ','
    )]
    pub targets: Vec<TargetName>,
    /// File for the figures, as JSON
    #[arg(long, default_value = "bench-feed.json")]
    pub out: PathBuf,
    /// The nginx program, and nchan's module
    #[arg(long, env = "BENCH_NGINX", default_value = "/usr/sbin/nginx")]
    pub nginx: PathBuf,
    #[arg(
        long,
        env = "BENCH_NCHAN",
        default_value = "/usr/lib/nginx/modules/ngx_nchan_module.so"
    )]
    pub nchan: PathBuf,
    /// Minutes after which the benchmark stops
    #[arg(long, default_value_t = 90)]
    pub minutes_max: u64,
    /// Run as the bare server; the benchmark starts it
    #[arg(long, hide = true)]
    pub bare_server: bool,
}

/// The compressions that clients request, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionOption {
    Off,
    On,
    Both,
}

impl CompressionOption {
    fn compressions(self) -> &'static [Compression] {
        match self {
            CompressionOption::Off => &[Compression::Off],
            CompressionOption::On => &[Compression::On],
            CompressionOption::Both => &[Compression::Off, Compression::On],
        }
    }
}

/// Descriptors besides the connections: those that the service reserves for callers of its API, and some more.
const OTHER_FILES: usize = 6_000;

impl Options {
    /// Checks that this process, and those that it starts, may open as many files as the connections need.
    pub fn check_open_files(&self, allowed: u64) -> anyhow::Result<()> {
        let needed = files_needed(self.connections);
        anyhow::ensure!(
            needed as u64 <= allowed,
            "{} connections need {needed} open files at each end, and this user may have {allowed}: raise the hard limit, or give --connections {}",
            self.connections,
            connections_possible(allowed)
        );
        Ok(())
    }
}

/// Including the slow readers of the soak test.
fn files_needed(connections: usize) -> usize {
    connections + connections / 100 + OTHER_FILES
}

fn connections_possible(files: u64) -> usize {
    usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHER_FILES)
        / 102
        * 100
}
