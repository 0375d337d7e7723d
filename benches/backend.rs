//! The backend of the service under measurement: Postgres, a local chain, and the service's own process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gridtokenx::api::{Authenticator, TokenKeys};
use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SECRET: &str = "a secret of the benchmark, longer than 32 bytes";
pub const START_LIMIT: Duration = Duration::from_secs(90);

/// A Postgres and a local chain; they end with this process.
pub struct Backend {
    pub cluster: PostgresCluster,
    pub chain: LocalChain,
}

impl Backend {
    pub async fn start() -> Result<Backend> {
        // With fsync, as in production.
        let cluster = PostgresCluster::start(PostgresOptions {
            fsync: true,
            ..PostgresOptions::ephemeral()
        })
        .await?;
        Ok(Backend {
            cluster,
            chain: LocalChain::start().await?,
        })
    }
}

/// A local chain that keeps nothing. Dropping it kills its process.
pub struct LocalChain {
    pub rpc_url: String,
    pub pid: u32,
    _process: Child,
}

impl LocalChain {
    pub async fn start() -> Result<LocalChain> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gridtokenx-localnet"))
            .args(["--rpc-addr", "127.0.0.1:0", "--ephemeral"])
            .env("LOCALNET_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await??;
        let line = line.context("the local chain did not start")?;
        let rpc_url = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("rpc="))
            .context("the local chain reported no address")?
            .to_owned();
        Ok(LocalChain {
            rpc_url,
            pid: process.id().context("the local chain ended")?,
            _process: process,
        })
    }
}

/// The service as a process on its own database. Dropping it kills the process.
pub struct Service {
    pub address: SocketAddr,
    pub pid: u32,
    pub pool: PgPool,
    pub database_url: String,
    /// Issues tokens that the service accepts.
    pub tokens: Authenticator,
    files: TempDir,
    _process: Child,
}

impl Service {
    /// Starts it on a new database, with these settings beside those that every benchmark needs.
    pub async fn start(backend: &Backend, settings: &[(&str, &str)]) -> Result<Service> {
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        let database_url = backend.cluster.create_database(&name).await?;
        let files = TempDir::new()?;
        let ready = files.path().join("address");
        let mut process = Command::new(env!("CARGO_BIN_EXE_gridtokenx"))
            .arg("serve")
            .arg("--ready-file")
            .arg(&ready)
            .env_clear()
            .env("LOG_LEVEL", "error")
            .env("DATABASE_URL", &database_url)
            .env("SOLANA_RPC_URL", &backend.chain.rpc_url)
            .env("HTTP_ADDR", "127.0.0.1:0")
            .env("JWT_SECRET", SECRET)
            .env("API_RATE_LIMIT", "10000000")
            .env("GRIDTOKENX_DATA_DIR", files.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()?;
        let address = until("the service serves", START_LIMIT, async || {
            std::fs::read_to_string(&ready).ok()
        })
        .await?;
        ensure!(process.try_wait()?.is_none(), "the service ended");
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(4)
            .connect(&database_url)
            .await?;
        Ok(Service {
            address: address.trim().trim_start_matches("http://").parse()?,
            pid: process.id().context("it ended")?,
            pool,
            database_url,
            tokens: Authenticator::new(TokenKeys::Secret(SECRET.to_owned()), None, None)
                .map_err(|error| anyhow::anyhow!("{error}"))?,
            files,
            _process: process,
        })
    }

    /// Its data directory, with its key files.
    pub fn data_dir(&self) -> &Path {
        self.files.path()
    }
}

/// Polls until `check` finds something.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    tokio::time::timeout(limit, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .with_context(|| format!("did not happen within {limit:?}: {what}"))
}

/// A directory that is removed when this is dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Result<TempDir> {
        let name = format!("gridtokenx-bench-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(TempDir(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
