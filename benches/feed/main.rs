//! `make bench-feed`: what the feed costs, and how that compares with servers that do less.
//!
//! Everything runs on this machine, over loopback, and stops by itself: the service as its own process with a Postgres and a
//! local chain of its own; a bare server on the service's own WebSockets, as the limit of what is possible; and nchan (nginx)
//! where it is found. The load comes from this process, so it shares the cores with what it measures.

mod bare;
mod client;
mod figures;
mod process;
mod run;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::targets::TargetName;

/// Measures the event feed.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Connections that listen
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    /// Events a second, each to one owner
    #[arg(long, default_value_t = 1_000)]
    pub rate: usize,
    /// Seconds of each round at that rate
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Rounds of each measurement; told are the median and the range
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of the service's soak with 1 % slow readers; 0: none
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub soak_seconds: u64,
    /// Ask for permessage-deflate: off, on or both
    #[arg(long, value_enum, default_value_t = Asked::Both)]
    pub compression: Asked,
    /// What is measured, comma separated
    #[arg(
        long,
        value_enum,
        default_value = "service,bare,nchan",
        value_delimiter = ','
    )]
    pub targets: Vec<TargetName>,
    /// Where the figures go, as JSON
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
    /// Minutes after which it gives up
    #[arg(long, default_value_t = 90)]
    pub minutes_max: u64,
    /// Serves as the bare server; the benchmark starts it
    #[arg(long, hide = true)]
    pub bare_server: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// Which compressions clients ask for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    Off,
    On,
    Both,
}

impl Asked {
    fn asked(self) -> &'static [bool] {
        match self {
            Asked::Off => &[false],
            Asked::On => &[true],
            Asked::Both => &[false, true],
        }
    }
}

/// For descriptors that are no connections: those that the service keeps for callers of its API, and some.
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
    let done = runtime.block_on(run_to_the_end(&options));
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    done
}

/// With the slow ones of the soak.
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

/// Or to its limit, or to a signal. In any case what it started ends with it.
async fn run_to_the_end(options: &Options) -> anyhow::Result<()> {
    let limit = Duration::from_secs(60 * options.minutes_max);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = tokio::time::timeout(limit, run::run(options)) => {
            done.context("--minutes-max is over; what was measured until then is in --out")?
        }
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
