//! A private PostgreSQL cluster: created, started or adopted, restarted and stopped.

use std::path::Path;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use super::binaries::Binaries;
use super::data_location::{DataLocation, FALLBACK_PARENT, data_in};
use super::error::EmbeddedError;
use super::initdb::ensure_cluster;
use super::log_file::{LogFile, last_error};
use super::postgres_options::{Lifetime, PostgresOptions};
use super::postgres_server::{Server, ServerSetup, stop_leftover};
use super::watchdog::Watchdog;

/// The database of the service.
const DATABASE: &str = "gridtokenx";
/// The extensions that the schema requires.
const EXTENSIONS: [&str; 2] = ["btree_gist", "hstore"];

/// A running cluster with a database for the service. Dropping it leaves a durable one running; the next start adopts it.
#[derive(Debug)]
pub struct PostgresCluster {
    setup: ServerSetup,
    server: Server,
    watchdog: Option<Watchdog>,
}

impl PostgresCluster {
    /// Creates the cluster where it does not exist, adopts its server where it runs, starts it otherwise, and returns once it
    /// answers. Fails after 30 s without any answer; recovery after a crash has no limit.
    pub async fn start(options: PostgresOptions) -> Result<PostgresCluster, EmbeddedError> {
        let location = DataLocation::prepare(&options.data_dir, Path::new(FALLBACK_PARENT))?;
        let binaries = Binaries::find(&location.data())?;
        let watchdog = match options.lifetime {
            Lifetime::UntilStopped => None,
            Lifetime::ThisProcess => Some(Watchdog::start(&location, &binaries)?),
        };
        let log = LogFile::new(location.dir().join("postgres.log"));
        let password = ensure_cluster(&options, &location, &binaries, &log).await?;
        let setup = ServerSetup {
            options,
            location,
            binaries,
            password,
            log,
        };
        let server = match setup.adopt().await {
            Some(server) => server,
            None => setup.launch().await?,
        };
        let cluster = PostgresCluster {
            setup,
            server,
            watchdog,
        };
        match cluster.prepare_database().await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await;
                Err(error)
            }
        }
    }

    /// A cluster for tests: without fsync, in the system's temporary directory, stopped and removed with this process.
    pub async fn ephemeral() -> Result<PostgresCluster, EmbeddedError> {
        PostgresCluster::start(PostgresOptions::ephemeral()).await
    }

    /// Stops the server that an earlier process left running on this data directory, if any. Returns whether there was one.
    pub async fn stop_leftover(data_dir: &Path) -> Result<bool, EmbeddedError> {
        match DataLocation::find(data_dir)? {
            Some(location) => Ok(stop_leftover(&data_in(&location)).await),
            None => Ok(false),
        }
    }

    /// URL of the service's database, with the password: a secret.
    pub fn database_url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// Creates an empty database where it does not exist, and returns its URL.
    pub async fn create_database(&self, name: &str) -> Result<String, EmbeddedError> {
        self.copy_database(name, "template1").await
    }

    /// Creates a database as a copy of `template`, to which no session may be connected, and returns its URL. An existing
    /// database of that name is left unchanged.
    pub async fn copy_database(&self, name: &str, template: &str) -> Result<String, EmbeddedError> {
        let mut connection = self.connect().await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            // Names cannot be bound as parameters.
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

    /// Waits until the server has ended, for whatever reason.
    pub async fn exited(&mut self) {
        self.server.process.exited().await;
    }

    /// Restarts the server on the same port and state if it has ended, and returns whether it had. A server that only hangs is
    /// not restarted. Also truncates its log, so call it regularly in any case.
    pub async fn ensure_alive(&mut self) -> Result<bool, EmbeddedError> {
        self.setup.log.truncate_if_long();
        if !self.server.process.has_exited() {
            return Ok(false);
        }
        tracing::warn!(
            last_words = last_error(&self.setup.log.tail(0)),
            "PostgreSQL has ended; restarting it"
        );
        self.server = self.setup.launch_on(self.server.port).await?;
        Ok(true)
    }

    /// Shuts the server down, adopted or not: first it may wait for its clients, then it ends their transactions, finally it is
    /// killed, which loses no committed data. Takes 46 s at most.
    pub async fn stop(mut self) {
        self.server.stop().await;
        drop(self.watchdog);
    }

    fn url_of(&self, database: &str) -> String {
        let options = self.setup.connect_options(self.server.port, database);
        options.to_url_lossy().into()
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let options = self.setup.connect_options(self.server.port, "postgres");
        PgConnection::connect_with(&options).await
    }

    /// Creates the service's database, after a check that its extensions are installed.
    async fn prepare_database(&self) -> Result<(), EmbeddedError> {
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
