//! The benchmarks, one subcommand each: `make bench-feed`, `make bench-mint`.
//!
//! Everything runs on one machine, over loopback, and stops by itself. This process generates the load, so it shares the cores
//! with what it measures.

mod backend;
mod feed;
mod figure;
mod mint;
mod process;

use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// `cargo bench` adds this flag
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    Feed(feed::Options),
    Mint(mint::Options),
}

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let open_files = process::raise_file_limit()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        match arguments.benchmark {
            Benchmark::Feed(options) if options.bare_server => feed::serve_bare().await,
            Benchmark::Feed(options) => {
                options.check_open_files(open_files)?;
                until_limit(options.minutes_max, feed::run(&options)).await
            }
            Benchmark::Mint(options) => until_limit(options.minutes_max, mint::run(&options)).await,
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    result
}

/// Runs to the end, to its limit, or to a signal. In any case the processes that it started end with it.
async fn until_limit(
    minutes_max: u64,
    benchmark: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let limit = Duration::from_secs(60 * minutes_max);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::time::timeout(limit, benchmark) => {
            result.context("--minutes-max is over; the figures so far are in --out")?
        }
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}
