//! A private PostgreSQL cluster.

use std::path::{Path, PathBuf};

use rand::Rng;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::EmbeddedError;
use super::binaries::Binaries;
use super::data_location::{ELSEWHERE, Home, data_in};
use super::initdb::ensure_cluster;
use super::log_file::{LogFile, reason};
use super::server::{Server, Site, stop_leftover};
use super::watchdog::Watchdog;

pub(super) const SUPERUSER: &str = "gridtokenx";
/// The database of the service.
const DATABASE: &str = "gridtokenx";
/// What the schema needs beyond a bare server.
const EXTENSIONS: [&str; 2] = ["btree_gist", "hstore"];

/// How a cluster is kept.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Where it lives; made where it does not exist. The same directory is the same cluster.
    pub data_dir: PathBuf,
    /// Whether a commit survives a power cut. It survives a kill either way.
    pub fsync: bool,
    pub max_connections: u32,
    /// `None`: the port that it had last, else any free one.
    pub port: Option<u16>,
    pub lifetime: Lifetime,
}

/// How long a cluster runs and is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It runs until it is stopped, beyond this process if need be, and its data stay.
    UntilStopped,
    /// It ends with this process, however that dies, and its data go.
    ThisProcess,
}

impl PostgresOptions {
    /// Keeps every commit.
    pub fn durable(data_dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions {
            data_dir: data_dir.into(),
            fsync: true,
            max_connections: 100,
            port: None,
            lifetime: Lifetime::UntilStopped,
        }
    }

    /// As fast as it gets, in a temporary directory, gone with this process.
    pub fn ephemeral() -> PostgresOptions {
        let name = format!(
            "gridtokenx-{}-{:08x}",
            std::process::id(),
            rand::rng().random::<u32>()
        );
        PostgresOptions {
            data_dir: std::env::temp_dir().join(name),
            fsync: false,
            max_connections: 300,
            port: None,
            lifetime: Lifetime::ThisProcess,
        }
    }
}

/// A running cluster with a database for the service. Dropping it leaves a durable one running; the next start adopts it.
#[derive(Debug)]
pub struct PostgresCluster {
    site: Site,
    server: Server,
    watchdog: Option<Watchdog>,
}

impl PostgresCluster {
    /// Makes the cluster where it does not exist, adopts its server where it runs, starts it otherwise, and returns once it
    /// answers. Limits: 30 s without any sign of life; recovery after a crash may take as long as it takes.
    pub async fn start(options: PostgresOptions) -> Result<PostgresCluster, EmbeddedError> {
        let home = Home::prepare(&options.data_dir, Path::new(ELSEWHERE))?;
        let binaries = Binaries::find(&home.data())?;
        let watchdog = match options.lifetime {
            Lifetime::UntilStopped => None,
            Lifetime::ThisProcess => Some(Watchdog::start(&home, &binaries)?),
        };
        let log = LogFile::new(home.dir().join("postgres.log"));
        let password = ensure_cluster(&options, &home, &binaries, &log).await?;
        let site = Site {
            options,
            home,
            binaries,
            password,
            log,
        };
        let server = match site.adopt().await {
            Some(server) => server,
            None => site.launch().await?,
        };
        let cluster = PostgresCluster {
            site,
            server,
            watchdog,
        };
        match cluster.furnish().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    /// A cluster for tests: without fsync, in the system's temporary directory, ended and removed with this process.
    pub async fn ephemeral() -> Result<PostgresCluster, EmbeddedError> {
        PostgresCluster::start(PostgresOptions::ephemeral()).await
    }

    /// Stops the server that an earlier process left running on this data directory, if any. True when there was one.
    pub async fn stop_leftover(data_dir: &Path) -> Result<bool, EmbeddedError> {
        match Home::find(data_dir)? {
            Some(home) => Ok(stop_leftover(&data_in(&home)).await),
            None => Ok(false),
        }
    }

    /// URL of the service's database, with the password: a secret.
    pub fn database_url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// Makes an empty database where it does not exist, and returns its URL.
    pub async fn create_database(&self, name: &str) -> Result<String, EmbeddedError> {
        self.copy_database(name, "template1").await
    }

    /// Makes a database as a copy of `template`, to which nobody may be connected, and returns its URL. A database of that
    /// name that exists is left as it is.
    pub async fn copy_database(&self, name: &str, template: &str) -> Result<String, EmbeddedError> {
        let mut connection = self.connect().await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            // Names cannot be bound.
            let statement = format!(
                "CREATE DATABASE {} TEMPLATE {}",
                quoted(name),
                quoted(template)
            );
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await?;
        }
        connection.close().await?;
        Ok(self.url_of(name))
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.process.pid()
    }

    /// Loopback port of the server; stays the same as long as this value lives.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Waits until the server has ended, by whatever means.
    pub async fn exited(&mut self) {
        self.server.process.exited().await;
    }

    /// Starts the server again, on the same port and state, if it has ended: true when it had. One that only hangs is left
    /// alone. Also keeps its log short, so call it now and then in any case.
    pub async fn ensure_alive(&mut self) -> Result<bool, EmbeddedError> {
        self.site.log.keep_short();
        if !self.server.process.has_exited() {
            return Ok(false);
        }
        tracing::warn!(
            last_words = reason(&self.site.log.tail(0)),
            "PostgreSQL has ended; starting it again"
        );
        self.server = self.site.launch_on(self.server.port).await?;
        Ok(true)
    }

    /// Shuts the server down, adopted or not: at first it may wait for its clients, then it ends their transactions, in the
    /// end it is killed, which loses nothing that was committed. At most 46 s.
    pub async fn stop(mut self) {
        self.server.stop().await;
        drop(self.watchdog);
    }

    fn url_of(&self, database: &str) -> String {
        let options = self.site.connect_options(self.server.port, database);
        options.to_url_lossy().into()
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = self.site.connect_options(self.server.port, "postgres");
        PgConnection::connect_with(&options).await
    }

    /// What the service needs to find.
    async fn furnish(&self) -> Result<(), EmbeddedError> {
        let mut connection = self.connect().await?;
        for extension in EXTENSIONS {
            let available: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)",
            )
            .bind(extension)
            .fetch_one(&mut connection)
            .await?;
            if !available {
                return Err(EmbeddedError::NoExtension { extension });
            }
        }
        connection.close().await?;
        self.create_database(DATABASE).await?;
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
