//! `gridtokenx serve`: the service alone, on an existing database and chain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::open_files;
use super::start::start;
use super::start_error::StartError;
use crate::commands::signals::stop_on_signal;
use crate::config::Config;
use crate::telemetry;

/// The arguments of `gridtokenx serve`.
#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: Config,

    /// Once it serves, its address (http://host:port) appears in this file
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends it at once and loses nothing, because the ledger recovers.
pub async fn run(args: ServeArgs) -> Result<ExitCode, StartError> {
    args.config.check_complete()?;
    telemetry::init_logs(&args.config.log)?;
    let stop = stop_on_signal().map_err(StartError::Signals)?;
    open_files::require_room(&args.config)?;
    let service = tokio::select! {
        started = start(args.config) => started?,
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    if let Some(file) = &args.ready_file {
        write_ready_file(file, &service.api_url())?;
    }
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(ExitCode::SUCCESS),
        ended = service.wait() => Err(StartError::from(ended)),
    };
    service.shutdown().await;
    ended
}

/// By rename, so that a process that waits for the file never reads half of it.
fn write_ready_file(file: &Path, api_url: &str) -> Result<(), StartError> {
    let draft = file.with_extension("draft");
    std::fs::write(&draft, format!("{api_url}\n"))
        .and_then(|()| std::fs::rename(&draft, file))
        .map_err(|source| StartError::ReadyFile {
            path: file.to_owned(),
            source,
        })
}
