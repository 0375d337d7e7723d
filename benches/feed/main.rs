//! `make bench-feed`: measures what the feed costs, and compares it with servers that do less.
//!
//! Everything runs on one machine, over loopback, and stops by itself: the service as a process with its own Postgres and local
//! chain; a bare server on the service's WebSocket layer, as a lower bound; and nchan (nginx) if it is installed. This process
//! generates the load, so it shares the cores with what it measures.

mod bare;
mod client;
mod figures;
mod process;
mod run;
mod targets;
mod variant;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::variant::{Compression, TargetName};

/// Measures the event feed.
#[derive(Clone, Debug, Parser)]
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
    /// `cargo bench` adds this flag
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// Which compressions clients request, one after the other.
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
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let files = process::raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if options.bare_server {
        return runtime.block_on(bare::serve());
    }
    let needed = files_needed(options.connections);
    anyhow::ensure!(
        needed as u64 <= files,
        "{} connections need {needed} open files at each end, and this user may have {files}: raise the hard limit, or give --connections {}",
        options.connections,
        connections_possible(files)
    );
    let result = runtime.block_on(run_until_limit(&options));
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    result
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

/// Runs to the end, to its limit, or to a signal. In any case the processes that it started end with it.
async fn run_until_limit(options: &Options) -> anyhow::Result<()> {
    let limit = Duration::from_secs(60 * options.minutes_max);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::time::timeout(limit, run::run(options)) => {
            result.context("--minutes-max is over; the figures so far are in --out")?
        }
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
