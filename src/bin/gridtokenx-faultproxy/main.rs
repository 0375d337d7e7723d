//! A JSON-RPC proxy that injects faults, as a program: for tests that place it between a service and its chain.
//!
//! `PUT /control` takes a document of rules, `GET /control` returns it with the counts of calls; see [`gridtokenx::fault_proxy`].
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gridtokenx::fault_proxy::FaultProxy;

/// Forwards calls to a Solana RPC endpoint and injects faults by rules.
#[derive(Debug, Parser)]
#[command(name = "gridtokenx-faultproxy", version)]
struct Flags {
    /// Where it listens; port 0 takes a free one. The address is printed: listening=ADDR.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// The RPC endpoint behind it.
    #[arg(long, value_name = "URL")]
    target: String,

    /// Rules to begin with, as PUT /control takes them.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // stderr may be closed: then the exit status reports the failure.
            let _ = writeln!(std::io::stderr(), "gridtokenx-faultproxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until SIGINT or SIGTERM.
async fn run(flags: Flags) -> anyhow::Result<()> {
    let proxy = FaultProxy::start(flags.listen, &flags.target).await?;
    if let Some(file) = &flags.rules {
        let document = std::fs::read(file)?;
        proxy.put_rules(&serde_json::from_slice(&document)?)?;
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening={}", proxy.address)?;
    stdout.flush()?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        received = tokio::signal::ctrl_c() => received?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
