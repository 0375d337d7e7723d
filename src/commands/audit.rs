//! `gridtokenx audit`: proves that ledger and chain agree, of the running system or of the one that is configured.
//! `--adopt` and `--foreign` first book a landed mint that the ledger lacks; `--record` stores the verdict for dashboards and alerts.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgPool};

use super::paced_endpoints::paced_endpoints;
use super::running::{Running, RunningError};
use crate::admin::{self, AdoptionError};
use crate::audit::{self, AuditError, AuditReport, AuditScope, Memory};
use crate::chain::Endpoints;
use crate::config::{DataDir, DatabaseConfig, SolanaConfig};
use crate::domain::TxSignature;
use crate::ledger;

/// The arguments of `gridtokenx audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditArgs {
    /// Prints the report as one JSON document
    #[arg(long)]
    pub json: bool,

    /// First books this landed mint, which the ledger lacks, for the pending readings that give its sums and root
    #[arg(long, value_name = "SIGNATURE", conflicts_with = "foreign")]
    pub adopt: Option<TxSignature>,

    /// First books this landed mint, which the ledger lacks, without a reading, for this reason
    #[arg(long, num_args = 2, value_names = ["SIGNATURE", "REASON"])]
    pub foreign: Vec<String>,

    /// Records the verdict in the database, where the service's metrics and the alerts AuditFailed and AuditStale see it
    #[arg(long)]
    pub record: bool,

    /// Compares what is new since the last checkpoint and a random sample of the old; everything, where there is no checkpoint
    #[arg(long)]
    pub incremental: bool,

    /// How many old transactions an incremental audit reads from the chain
    #[arg(long, value_name = "N", default_value_t = SAMPLE, requires = "incremental")]
    pub sample: u32,

    /// Compares everything and believes nothing that earlier audits or the service have stored, such as how far an audit came
    #[arg(long, conflicts_with = "incremental")]
    pub from_scratch: bool,

    #[command(flatten)]
    pub data_dir: DataDir,

    #[command(flatten)]
    pub database: DatabaseConfig,

    #[command(flatten)]
    pub solana: SolanaConfig,
}

/// Ledger and chain differ.
const DIFFERENCES: u8 = 1;
/// The audit could not run.
const NOT_RUN: u8 = 2;

/// A changed row among a hundred is found on the first night with a probability of 99.99 %, one among a thousand with 63 %.
const SAMPLE: u32 = 1_000;

/// Limit of one RPC call.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// An audit reads page after page, so it needs few connections and leaves the others to the service.
const CONNECTIONS: u32 = 4;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The audit itself never writes, and has the database enforce it.
const READING_SESSION: &str = "SET default_transaction_read_only = on;
SET TIME ZONE 'UTC'";
/// Bounds the wait for a row that another session has locked.
const WRITING_SESSION: &str = "SET lock_timeout = '30s';
SET idle_in_transaction_session_timeout = '30s';
SET TIME ZONE 'UTC'";

/// The audit could not run, or its result was not recorded.
#[derive(Debug, thiserror::Error)]
enum NoVerdict {
    #[error(transparent)]
    NotRunning(#[from] RunningError),
    #[error(
        "the database URL is not one of Postgres: write postgres://user:password@host:port/database"
    )]
    DatabaseUrl,
    #[error("the database does not answer: {0}")]
    Database(#[from] sqlx::Error),
    #[error(
        "--foreign {0}: this is not a signature; give the transaction's signature and a reason"
    )]
    Signature(String),
    #[error(
        "ledger and chain were compared ({verdict}), but the verdict could not be recorded: {error}; audit without --record to read it"
    )]
    NotRecorded {
        verdict: &'static str,
        error: sqlx::Error,
    },
    #[error(transparent)]
    Adoption(#[from] Box<AdoptionError>),
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Status 0 when ledger and chain agree, 1 on any difference, 2 when the audit could not be run.
pub async fn run(args: AuditArgs) -> ExitCode {
    match examine(&args).await {
        Ok(report) => {
            print(&report, args.json);
            if report.ok {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(DIFFERENCES)
            }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "gridtokenx: {error}");
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn examine(args: &AuditArgs) -> Result<AuditReport, NoVerdict> {
    let system = AuditedSystem::of(args)?;
    let pool = connect(&system.database_url, READING_SESSION).await?;
    let endpoints = paced_endpoints(&args.solana, &system.rpc_urls, CALL_LIMIT).await;
    if let Some(asked) = args.solana.mint_address {
        let binding = ledger::binding(&pool).await.map_err(AuditError::from)?;
        if binding.mint != asked {
            return Err(NoVerdict::Audit(AuditError::OtherMint {
                requested: asked.to_string(),
                ledger: binding.mint.to_string(),
            }));
        }
    }
    if let Some(asked) = Booking::of(args)? {
        let writable = connect(&system.database_url, WRITING_SESSION).await?;
        asked.carry_out(&writable, &endpoints).await?;
        writable.close().await;
    }
    let writable = match args.record {
        true => Some(connect(&system.database_url, WRITING_SESSION).await?),
        false => None,
    };
    let report = audit::audit_with(&pool, &endpoints, scope(args), writable.as_ref()).await?;
    pool.close().await;
    if let Some(writable) = writable {
        audit::record(&writable, &report)
            .await
            .map_err(|error| NoVerdict::NotRecorded {
                verdict: if report.ok {
                    "they agree"
                } else {
                    "they differ"
                },
                error,
            })?;
        writable.close().await;
    }
    Ok(report)
}

fn scope(args: &AuditArgs) -> AuditScope {
    match (args.incremental, args.from_scratch) {
        (true, _) => AuditScope::Incremental {
            sample: args.sample,
        },
        (false, true) => AuditScope::Full {
            memory: Memory::Ignored,
        },
        (false, false) => AuditScope::FULL,
    }
}

/// The booking of a landed mint, before the audit.
enum Booking<'a> {
    Adopt(TxSignature),
    Foreign(TxSignature, &'a str),
}

impl Booking<'_> {
    fn of(args: &AuditArgs) -> Result<Option<Booking<'_>>, NoVerdict> {
        if let Some(signature) = args.adopt {
            return Ok(Some(Booking::Adopt(signature)));
        }
        let [signature, reason] = args.foreign.as_slice() else {
            return Ok(None);
        };
        let signature = TxSignature::from_str(signature)
            .map_err(|_| NoVerdict::Signature(signature.chars().take(SHOWN_MAX).collect()))?;
        Ok(Some(Booking::Foreign(signature, reason)))
    }

    /// Prints what was done to stderr, because stdout is for the report alone.
    async fn carry_out(&self, pool: &PgPool, endpoints: &Endpoints) -> Result<(), NoVerdict> {
        let actor = operator();
        let done = match self {
            Booking::Adopt(signature) => {
                let readings = admin::adopt_mint(pool, endpoints, &actor, *signature)
                    .await
                    .map_err(Box::new)?;
                format!("adopted {signature}: it paid {readings} readings")
            }
            Booking::Foreign(signature, reason) => {
                admin::book_foreign_mint(pool, endpoints, &actor, *signature, reason)
                    .await
                    .map_err(Box::new)?;
                format!("booked {signature} without a reading")
            }
        };
        let breaker = breaker_after_scan(pool, endpoints).await;
        let _ = writeln!(io::stderr(), "gridtokenx: {done}; {breaker}");
        Ok(())
    }
}

/// A signature has 88 characters: a longer text is cut in the error.
const SHOWN_MAX: usize = 100;

/// The name of the operator for the admin log: the user name of the operating system's session.
fn operator() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    format!("operator {name}").trim_end().to_owned()
}

/// Scans the history at once, as the service does once a minute.
async fn breaker_after_scan(pool: &PgPool, endpoints: &Endpoints) -> String {
    let scanned = async {
        let binding = ledger::binding(pool)
            .await
            .map_err(|error| error.to_string())?;
        let (mint, authority) = (&binding.mint, &binding.authority);
        ledger::scan_history(pool, endpoints, mint, authority, CALL_LIMIT)
            .await
            .map_err(|error| error.to_string())
    };
    match scanned.await {
        Ok(outcome) if outcome.breaker.is_closed() => {
            "the ledger breaker is closed".to_owned()
        }
        Ok(_) => "the ledger breaker is still open: another mint is not booked, or a transaction signed before may still land"
            .to_owned(),
        Err(error) => format!("whether the ledger breaker closes is unknown until the next history scan of the service ({error})"),
    }
}

/// The ledger and the chain that are audited.
struct AuditedSystem {
    database_url: String,
    rpc_urls: Vec<String>,
}

impl AuditedSystem {
    /// Takes what is configured, and the rest from the running system.
    fn of(args: &AuditArgs) -> Result<AuditedSystem, RunningError> {
        let database_url = args
            .database
            .url
            .as_ref()
            .map(|url| url.expose().to_owned());
        let rpc_urls: Vec<String> = args
            .solana
            .rpc_urls
            .iter()
            .map(|url| url.expose().to_owned())
            .collect();
        if let (Some(database_url), false) = (&database_url, rpc_urls.is_empty()) {
            return Ok(AuditedSystem {
                database_url: database_url.clone(),
                rpc_urls,
            });
        }
        let running = Running::read(&args.data_dir.path)?;
        Ok(AuditedSystem {
            database_url: database_url.unwrap_or(running.database_url),
            rpc_urls: if rpc_urls.is_empty() {
                running.rpc_url.split(',').map(str::to_owned).collect()
            } else {
                rpc_urls
            },
        })
    }
}

async fn connect(database_url: &str, session: &'static str) -> Result<PgPool, NoVerdict> {
    let options = PgConnectOptions::from_str(database_url)
        .map_err(|_| NoVerdict::DatabaseUrl)?
        .application_name("gridtokenx audit")
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECT_LIMIT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(session).await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Ignores a closed stdout: the exit status carries the verdict.
fn print(report: &AuditReport, as_json: bool) {
    let mut out = io::stdout().lock();
    let _ = if as_json {
        serde_json::to_writer_pretty(&mut out, report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{report}")
    };
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditArgs,
    }

    fn system(flags: &[&str]) -> Result<AuditedSystem, RunningError> {
        let line = ["audit"].into_iter().chain(flags.iter().copied());
        AuditedSystem::of(&Line::try_parse_from(line).unwrap().audit)
    }

    #[test]
    fn what_is_not_configured_is_taken_from_the_running_system() {
        let data_dir = std::env::temp_dir().join(format!("audit-{}", uuid::Uuid::new_v4()));
        let path = data_dir.to_str().unwrap();
        std::fs::create_dir(&data_dir).unwrap();
        let nothing_runs = system(&["--gridtokenx-data-dir", path]).err().unwrap();
        assert!(
            matches!(nothing_runs, RunningError::NotRunning { .. }),
            "{nothing_runs}"
        );
        let running = Running {
            api_url: "http://127.0.0.1:8080".to_owned(),
            rpc_url: "http://127.0.0.1:8899,http://127.0.0.1:8898".to_owned(),
            ws_url: "ws://127.0.0.1:8080/ws".to_owned(),
            database_url: "postgres://localhost/running".to_owned(),
            mint_address: "So11111111111111111111111111111111111111112".to_owned(),
            pid: 42,
        };
        running.write(&data_dir).unwrap();

        let found = system(&["--gridtokenx-data-dir", path]).unwrap();
        assert_eq!(found.database_url, running.database_url);
        assert_eq!(
            found.rpc_urls,
            ["http://127.0.0.1:8899", "http://127.0.0.1:8898"]
        );

        let given = system(&[
            "--gridtokenx-data-dir",
            path,
            "--database-url",
            "postgres://localhost/given",
        ])
        .unwrap();
        assert_eq!(given.database_url, "postgres://localhost/given");
        assert_eq!(given.rpc_urls.len(), 2);
        std::fs::remove_dir_all(&data_dir).unwrap();
    }
}
