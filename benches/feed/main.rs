//! `make bench-feed`: what the feed costs, and how that compares with servers that do less.
//!
//! Everything runs on this machine, over loopback, and stops by itself: the service as its own process with a Postgres and a
//! local chain of its own, a bare WebSocket server as the limit of what is possible, and nchan (nginx) where it is found. The
//! load comes from this process, so it shares the cores with what it measures.

mod client;
mod figures;
mod process;
mod run;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

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
    /// Seconds of the soak with 1 % slow readers; 0: none
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub soak_seconds: u64,
    /// Ask for permessage-deflate: off, on or both
    #[arg(long, default_value = "both")]
    pub compression: String,
    /// What is measured, comma separated
    #[arg(long, default_value = "service,bare,nchan", value_delimiter = ',')]
    pub targets: Vec<String>,
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
    /// Serves as the bare server; the benchmark starts it
    #[arg(long, hide = true)]
    pub bare_server: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// For descriptors that are no connections.
const OTHER_FILES: u64 = 200;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let files = process::raise_file_limit()?;
    let possible = files.saturating_sub(OTHER_FILES) as usize;
    anyhow::ensure!(
        options.connections <= possible,
        "{} connections need as many open files, and this user may have {files}: raise the hard limit, or give --connections {possible}",
        options.connections
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if options.bare_server {
        return runtime.block_on(targets::serve_bare());
    }
    let done = runtime.block_on(run::run(&options));
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}
