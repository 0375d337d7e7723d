//! The program `gridtokenx`: reads the command line and calls one function.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gridtokenx::commands::{audit, listen, run, serve, token};

/// Mints SPL tokens on Solana for smart-meter readings, each accepted reading exactly once.
#[derive(Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts database, chain and service, and plays a year of real meter data
    Run(Box<run::RunArgs>),
    /// The service alone, on an existing database and chain
    Serve(Box<serve::ServeArgs>),
    /// Proves that ledger and chain agree: status 0, 1 on any difference, 2 when it could not be run
    Audit(Box<audit::AuditArgs>),
    /// Prints a development token, and nothing else
    Token(token::TokenArgs),
    /// Prints the events of the running system as they arrive
    Listen(listen::ListenArgs),
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    #[cfg(feature = "failpoints")]
    let _scenario = gridtokenx::failpoint::scenario();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the asynchronous runtime does not start: {error}"))
        .and_then(|runtime| runtime.block_on(execute(command_line.command)));
    ended.unwrap_or_else(|sentence| {
        // stderr may be closed: then the exit status alone reports the failure.
        let _ = writeln!(std::io::stderr(), "gridtokenx: {sentence}");
        ExitCode::FAILURE
    })
}

/// An error is one sentence.
async fn execute(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Run(args) => run::run(*args).await.map_err(|error| error.to_string()),
        Command::Serve(args) => serve::run(*args).await.map_err(|error| error.to_string()),
        Command::Audit(args) => Ok(audit::run(*args).await),
        Command::Token(args) => token::run(&args).map_err(|error| error.to_string()),
        Command::Listen(args) => listen::run(args).await.map_err(|error| error.to_string()),
    }
}
