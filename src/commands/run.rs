//! `gridtokenx run`: database, chain and service from one command, a play of real meter data, and its report.
//!
//! Invariant: this process ends whatever it started, in order, unless it is killed; and what a killed one left running never
//! keeps the next one from starting. Order of the shutdown: the play, the service (it drains), the chain, the database.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::atomic_file::folder_of;
use super::data_dir::{DataDir, DataDirError};
use super::local_stack::LocalStack;
use super::paced_endpoints::paced_endpoints;
use super::replay::{
    ApiClient, Calendar, Day, METER_OWNER, Outcome, Replay, ReplayError, STALL_LIMIT, Speed, Target,
};
use super::report::{Report, ReportError, Subject};
use super::run_output;
use super::running::Running;
use super::serve::{self, RunningService, StartError};
use super::signals::stop_on_signal;
use super::tokens::{TokenError, TokenSource, with_development_secret};
use crate::config::{Config, ConfigError, ProcessRole};
use crate::domain::{Backoff, Jitter, Retries, rfc3339_secs};
use crate::embedded::EmbeddedError;
use crate::meters::Role;
use crate::telemetry::{self, LogError};

const LOG_LEVEL_DEFAULT: &str = "info";
/// During a play: without a line for each request and job, which would hide everything else. Any LOG_LEVEL but the default is
/// kept.
const LOG_LEVEL_DURING_A_PLAY: &str =
    "warn,gridtokenx=info,gridtokenx::api=warn,gridtokenx::queue=warn";
const REPORT_BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10))
    .with_jitter(Jitter::HALF_TO_FULL);
/// How long a chain or a database may be unavailable before the report is given up.
const REPORT_LIMIT: Duration = Duration::from_secs(300);

/// The arguments of `gridtokenx run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Writes a JSON report here once the last reading of the play is finalized and audited
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Ends after the report; status 0 only if every accepted reading is finalized and the audit holds
    #[arg(long)]
    pub exit: bool,

    /// One real day of the data as one meter, or all days as a fleet: YYYY-MM-DD or fleet
    #[arg(long, value_name = "DAY", default_value = "fleet")]
    pub day: Day,

    /// Meter time passes so many times faster than real time, or as fast as the service takes it: a number or max
    #[arg(long, value_name = "N|max", default_value_t = Speed::DEFAULT)]
    pub speed: Speed,

    /// Serves without playing
    #[arg(long)]
    pub no_play: bool,

    /// Renames the old data directory and starts with an empty one
    #[arg(long)]
    pub fresh: bool,

    #[command(flatten)]
    pub config: Config,
}

/// It did not start, or ended early.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] LogError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    LocalStack(#[from] EmbeddedError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(
        "HTTP_ADDR={addr} cannot be listened on: {source}; stop what uses it, or give another address"
    )]
    Address {
        addr: SocketAddr,
        source: std::io::Error,
    },
    #[error("the report cannot be written: {} is not a directory", .folder.display())]
    NoReportFolder { folder: PathBuf },
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("running.json cannot be written: {0}")]
    Running(std::io::Error),
    #[error("the service stopped unexpectedly")]
    ServiceEnded,
    #[error(
        "GRIDTOKENX_ROLE={} is for `gridtokenx serve`: `gridtokenx run` is the whole system; remove it", .0.as_str()
    )]
    Role(ProcessRole),
}

/// Runs until a signal, or with `--exit` until the report.
pub async fn run(mut args: RunArgs) -> Result<ExitCode, RunError> {
    let stop = stop_on_signal().map_err(RunError::Signals)?;
    args.config.check()?;
    if args.config.service.role != ProcessRole::All {
        return Err(RunError::Role(args.config.service.role));
    }
    if args.config.log.level == LOG_LEVEL_DEFAULT {
        args.config.log.level = LOG_LEVEL_DURING_A_PLAY.to_owned();
    }
    telemetry::init_logs(&args.config.log)?;
    if let Some(folder) = args
        .report
        .as_deref()
        .map(folder_of)
        .filter(|folder| !folder.is_dir())
    {
        return Err(RunError::NoReportFolder { folder });
    }
    let data_dir = open_data_dir(&args).await?;
    let replay = plan(&args, &data_dir)?;
    // Before anything is started: a port in use is the most common reason to fail.
    check_free(args.config.http.addr).await?;
    args.config.data_dir.path = data_dir.path().to_owned();
    args.config.auth = with_development_secret(args.config.auth, data_dir.path())?;

    let stack = LocalStack::start(&mut args.config).await?;
    let ended = serve_and_play(&args, &data_dir, replay, &stop).await;
    stack.stop().await;
    ended
}

async fn open_data_dir(args: &RunArgs) -> Result<DataDir, RunError> {
    let data_dir = DataDir::lock(&args.config.data_dir.path)?;
    if !args.fresh {
        return Ok(data_dir);
    }
    LocalStack::stop_leftovers(data_dir.path()).await;
    let (fresh, aside) = data_dir.set_aside(Utc::now())?;
    eprintln!("The old data is kept in {}.", aside.display());
    Ok(fresh)
}

/// Plans the replay, unless `--no-play` is set.
fn plan(args: &RunArgs, data_dir: &DataDir) -> Result<Option<Replay>, RunError> {
    let now = Utc::now();
    let first_start = data_dir.first_start(now)?;
    if args.no_play {
        return Ok(None);
    }
    let seed = data_dir.seed("meter-seed")?;
    let calendar = Calendar::before(first_start);
    Ok(Some(Replay::plan(args.day, args.speed, calendar, &seed)?))
}

/// When the oldest interval passed the age limit, if it did.
fn outdated_since(replay: &Replay, config: &Config, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let age_limit = TimeDelta::from_std(config.tokenization.reading_max_age).ok()?;
    let too_old_at = replay.oldest_start()? + age_limit;
    (too_old_at <= now).then_some(too_old_at)
}

async fn check_free(addr: SocketAddr) -> Result<(), RunError> {
    match TcpListener::bind(addr).await {
        Ok(_) => Ok(()),
        Err(source) => Err(RunError::Address { addr, source }),
    }
}

async fn serve_and_play(
    args: &RunArgs,
    data_dir: &DataDir,
    replay: Option<Replay>,
    stop: &CancellationToken,
) -> Result<ExitCode, RunError> {
    let service = tokio::select! {
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        started = serve::start(args.config.clone()) => started?,
    };
    let running = running(&args.config, &service);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(ExitCode::SUCCESS),
        _ = service.wait() => Err(RunError::ServiceEnded),
        ended = play_then_serve(args, data_dir, replay, &service, &running) => ended,
    };
    // Other commands must not find a service that is about to end.
    if let Err(error) = Running::remove(data_dir.path()) {
        tracing::warn!(%error, "running.json could not be removed");
    }
    if !service.shutdown().await {
        tracing::warn!(
            "the service did not finish in time; the next start continues from the database"
        );
    }
    ended
}

/// The play and its report; without `--exit` it never ends unless it is stopped.
async fn play_then_serve(
    args: &RunArgs,
    data_dir: &DataDir,
    replay: Option<Replay>,
    service: &RunningService,
    running: &Running,
) -> Result<ExitCode, RunError> {
    running.write(data_dir.path()).map_err(RunError::Running)?;
    run_output::print_addresses(running);

    let played = match replay {
        None => Ok(true),
        Some(replay) => match outdated_since(&replay, &args.config, Utc::now()) {
            Some(since) => {
                eprintln!(
                    "Nothing is played: since {} the readings are older than TOKENIZATION_READING_MAX_AGE_DAYS; --fresh plays them anew.",
                    rfc3339_secs(since)
                );
                Ok(false)
            }
            None => play_and_report(args, replay, service, running).await,
        },
    };
    match played {
        Ok(holds) if args.exit => Ok(if holds {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        Err(error) if args.exit => Err(error),
        Err(error) => {
            eprintln!("The play ended early: {error}");
            serve_until_stopped().await
        }
        Ok(_) => serve_until_stopped().await,
    }
}

async fn serve_until_stopped() -> Result<ExitCode, RunError> {
    run_output::print_serving();
    std::future::pending().await
}

/// Whether every accepted reading is finalized and the audit holds.
async fn play_and_report(
    args: &RunArgs,
    replay: Replay,
    service: &RunningService,
    running: &Running,
) -> Result<bool, RunError> {
    let config = &args.config;
    let tokens = Arc::new(TokenSource::new(&config.auth, METER_OWNER, Role::User)?);
    let target = Target {
        api: ApiClient::new(&running.api_url, tokens.clone()).map_err(ReplayError::from)?,
        ws_url: running.ws_url.clone(),
        tokens,
        give_up_after: args.exit.then_some(STALL_LIMIT),
    };
    let day = replay.day();
    let outcome = replay.run(target).await?;
    let rpc_urls: Vec<String> = config
        .solana
        .rpc_urls
        .iter()
        .map(|url| url.expose().to_owned())
        .collect();
    let call_limit = config.tokenization.transaction_timeout;
    let subject = Subject {
        running,
        config,
        pool: service.pool(),
        endpoints: &paced_endpoints(&config.solana, &rpc_urls, call_limit).await,
        mint: service.mint_address(),
    };
    let report = report_on(subject, day, &outcome).await?;
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    run_output::print_report(&report, &outcome, config.tokenization.decimals);
    Ok(report.holds())
}

/// Retries, because the chain or the database may be unavailable for a moment.
async fn report_on(
    subject: Subject<'_>,
    day: Day,
    outcome: &Outcome,
) -> Result<Report, ReportError> {
    let mut retries = Retries::new(REPORT_BACKOFF);
    let begin = Instant::now();
    loop {
        match Report::make(subject, day, outcome).await {
            Err(error) if begin.elapsed() < REPORT_LIMIT => {
                tracing::warn!(%error, "no report yet; trying again");
                sleep(retries.next_delay(rand::random())).await;
            }
            made => return made,
        }
    }
}

fn running(config: &Config, service: &RunningService) -> Running {
    let rpc_urls: Vec<&str> = config
        .solana
        .rpc_urls
        .iter()
        .map(|url| url.expose())
        .collect();
    Running {
        api_url: service.api_url(),
        rpc_url: rpc_urls.join(","),
        ws_url: service.ws_url(),
        database_url: config
            .database
            .url
            .as_ref()
            .map_or("", |url| url.expose())
            .to_owned(),
        mint_address: service.mint_address().to_string(),
        pid: std::process::id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_play_is_outdated_once_its_oldest_interval_is() {
        let first_start: DateTime<Utc> = "2026-11-25T04:12:55Z".parse().unwrap();
        let config = Config::from_flags(["--tokenization-reading-max-age-days=7"]).unwrap();
        let calendar = Calendar::before(first_start);
        let replay = Replay::plan(Day::Fleet, Speed::Max, calendar, &[1; 32]).unwrap();
        // At least one day of the file has energy in its first half hour.
        let limit: DateTime<Utc> = "2026-12-01T04:00:00Z".parse().unwrap();

        assert_eq!(outdated_since(&replay, &config, first_start), None);
        assert_eq!(
            outdated_since(&replay, &config, limit - TimeDelta::seconds(1)),
            None
        );
        assert_eq!(outdated_since(&replay, &config, limit), Some(limit));
    }
}
