//! The running server of a cluster: launched, or adopted from a predecessor.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::Rng;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::binaries::Binaries;
use super::child_process::{ChildProcess, has_ended};
use super::data_location::DataLocation;
use super::error::EmbeddedError;
use super::log_file::{LogFile, last_error};
use super::postgres_options::{Lifetime, PostgresOptions, SUPERUSER};
use crate::config::Secret;
use crate::db::SqlCondition;

const PROGRAM: &str = "postgres";
/// Beside the cluster: the port that it used last, so that it uses it again.
const PORT_FILE: &str = "port";
/// Below the ports that the kernel assigns to outgoing connections: one of those could occupy the port, or even connect to
/// itself on it, while the server restarts.
const PORTS: std::ops::RangeInclusive<u16> = 15_000..=29_999;
const PORT_TRIES: usize = 20;

/// How often a starting server is polled, and how long one answer may take.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A server that neither accepts a connection nor reports that it is starting up for this long is broken. A new one may wait for
/// a busy disk; an adopted one has been running before.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const SILENCE_LIMIT_ADOPTED: Duration = Duration::from_secs(10);
/// Processes of a killed server notice its end within moments; until then a new one refuses to start.
const ORPHANS_LIMIT: Duration = Duration::from_secs(15);
/// Smart (waits for clients), fast (ends their transactions), immediate (recovers at the next start).
const SHUTDOWN: [(Signal, Duration); 3] = [
    (Signal::SIGTERM, Duration::from_secs(1)),
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(5)),
];
/// For a server that does not even answer, and so is unlikely to shut down in order.
const REPLACEMENT: [(Signal, Duration); 2] = [
    (Signal::SIGINT, Duration::from_secs(5)),
    (Signal::SIGQUIT, Duration::from_secs(5)),
];

const SETTINGS: [&str; 10] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_min_messages=warning",
    // A statement may hold secrets.
    "log_min_error_statement=panic",
    "log_checkpoints=off",
    "jit=off",
    "idle_in_transaction_session_timeout=10min",
    // Read by database_identity(): a restart of this server is normal.
    "gridtokenx.private_cluster=on",
];
/// `synchronous_commit` stays on: without it a killed server would lose the newest commits.
const SETTINGS_WITHOUT_FSYNC: [&str; 2] = ["fsync=off", "full_page_writes=off"];
/// Autovacuum starts a worker for each database once a minute: with the hundreds of a test run, several each second.
const SETTINGS_WHILE_TEMPORARY: [&str; 1] = ["autovacuum=off"];

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: ChildProcess,
    pub(super) port: u16,
}

impl Server {
    pub(super) async fn stop(&mut self) {
        self.process.stop(&SHUTDOWN).await;
    }
}

/// Stops the server that still runs on this cluster, if any. Returns whether there was one.
pub(super) async fn stop_leftover(data: &std::path::Path) -> bool {
    match ChildProcess::find(PROGRAM, data) {
        Some(mut process) => {
            process.stop(&SHUTDOWN).await;
            true
        }
        None => false,
    }
}

/// Everything that a server is started with.
#[derive(Debug)]
pub(super) struct ServerSetup {
    pub(super) options: PostgresOptions,
    pub(super) location: DataLocation,
    pub(super) binaries: Binaries,
    pub(super) password: Secret,
    pub(super) log: LogFile,
}

impl ServerSetup {
    pub(super) fn connect_options(&self, port: u16, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username(SUPERUSER)
            .password(self.password.expose())
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging()
    }

    /// The server that a predecessor left running, if it answers; one that does not is stopped.
    pub(super) async fn adopt(&self) -> Option<Server> {
        let mut process = ChildProcess::find(PROGRAM, &self.location.data())?;
        let pid = process.pid();
        let port = self
            .location
            .load(PORT_FILE)
            .and_then(|port| port.parse().ok());
        let Some(port) = port else {
            tracing::warn!(
                pid,
                "the port of the running PostgreSQL is unknown; stopping it"
            );
            process.stop(&SHUTDOWN).await;
            return None;
        };
        let answer = self
            .wait_for_answer(&mut process, port, self.log.size(), SILENCE_LIMIT_ADOPTED)
            .await;
        match answer {
            Ok(()) => {
                tracing::info!(pid, port, "adopted the running PostgreSQL");
                Some(Server { process, port })
            }
            Err(error) => {
                tracing::warn!(pid, port, %error, "the running PostgreSQL cannot be used; stopping it");
                process.stop(&REPLACEMENT).await;
                None
            }
        }
    }

    /// Starts a server: on the configured port, else on the one that it used last, else on any free one.
    pub(super) async fn launch(&self) -> Result<Server, EmbeddedError> {
        if let Some(port) = self.options.port {
            if !is_free(port) {
                return Err(EmbeddedError::AddressInUse {
                    addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    what: "the private database",
                });
            }
            return self.launch_on(port).await;
        }
        let kept = self
            .location
            .load(PORT_FILE)
            .and_then(|port| port.parse().ok());
        let any = std::iter::repeat_with(|| rand::rng().random_range(PORTS));
        let ports = kept
            .into_iter()
            .chain(any.take(PORT_TRIES))
            .filter(|port| is_free(*port));
        let mut refused = None;
        for port in ports {
            match self.launch_on(port).await {
                // Another program took the port between the check and the start.
                Err(error @ EmbeddedError::Exited { .. }) if !is_free(port) => {
                    refused = Some(error)
                }
                outcome => return outcome,
            }
        }
        Err(refused.unwrap_or(EmbeddedError::AddressInUse {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, *PORTS.end())),
            what: "the private database",
        }))
    }

    /// Starts a server on this port and waits until it answers.
    pub(super) async fn launch_on(&self, port: u16) -> Result<Server, EmbeddedError> {
        self.location.store(PORT_FILE, &port.to_string())?;
        let deadline = Instant::now() + ORPHANS_LIMIT;
        loop {
            self.remove_stale_pid_file();
            let start = self.log.size();
            let mut process = ChildProcess::spawn(&mut self.command(port)?)
                .map_err(EmbeddedError::file("cannot run", &self.binaries.postgres()))?;
            let Err(error) = self
                .wait_for_answer(&mut process, port, start, SILENCE_LIMIT)
                .await
            else {
                return Ok(Server { process, port });
            };
            process.stop(&SHUTDOWN).await;
            let orphans_remain = self
                .log
                .tail(start)
                .contains("pre-existing shared memory block");
            if !orphans_remain || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(POLL_INTERVAL * 4).await;
        }
    }

    fn command(&self, port: u16) -> Result<Command, EmbeddedError> {
        let output = self.log.open()?;
        let errors = output
            .try_clone()
            .map_err(EmbeddedError::file("cannot open", self.log.path()))?;
        let mut command = self
            .location
            .user()
            .command(&self.binaries.postgres(), self.location.dir());
        command
            .arg("-D")
            .arg(self.location.data())
            .args(["-c", &format!("port={port}")])
            .args([
                "-c",
                &format!("max_connections={}", self.options.max_connections),
            ])
            .stdout(output)
            .stderr(errors);
        let without_fsync: &[&str] = if self.options.fsync {
            &[]
        } else {
            &SETTINGS_WITHOUT_FSYNC
        };
        let while_temporary: &[&str] = match self.options.lifetime {
            Lifetime::UntilStopped => &[],
            Lifetime::ThisProcess => &SETTINGS_WHILE_TEMPORARY,
        };
        let settings = SETTINGS.iter().chain(without_fsync).chain(while_temporary);
        for setting in settings {
            command.args(["-c", setting]);
        }
        Ok(command)
    }

    /// Waits until the server accepts a connection. While it reports that it is starting up (or recovering after a crash) there
    /// is no limit; without any answer, `silence_limit` applies.
    async fn wait_for_answer(
        &self,
        process: &mut ChildProcess,
        port: u16,
        log_start: u64,
        silence_limit: Duration,
    ) -> Result<(), EmbeddedError> {
        let options = self.connect_options(port, "postgres");
        let mut deadline = Instant::now() + silence_limit;
        loop {
            if process.has_exited() {
                return Err(EmbeddedError::Exited {
                    program: "PostgreSQL",
                    reason: last_error(&self.log.tail(log_start)),
                    log: self.log.path().to_owned(),
                });
            }
            match timeout(ANSWER_LIMIT, PgConnection::connect_with(&options)).await {
                Ok(Ok(connection)) => return Ok(connection.close().await?),
                Ok(Err(error)) if is_starting(&error) => deadline = Instant::now() + silence_limit,
                Ok(Err(error @ sqlx::Error::Database(_))) => return Err(error.into()),
                // It does not listen yet, or does not answer.
                Ok(Err(_)) | Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(EmbeddedError::NoAnswer {
                    program: "PostgreSQL",
                    limit: silence_limit,
                    log: self.log.path().to_owned(),
                });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Removes a `postmaster.pid` that names no server of this cluster. The file survives a kill -9 and a power cut; its process
    /// id may belong to another program by now, or to a zombie that no process reaps (a container without an init). PostgreSQL
    /// detects that unless the other program runs as the same user; then it refuses to start. Two servers on one cluster are
    /// still impossible: PostgreSQL detects the other one by the shared memory, named after the directory's inode.
    fn remove_stale_pid_file(&self) {
        let path = self.location.data().join("postmaster.pid");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let Some(pid) = text.lines().next().and_then(|pid| pid.parse().ok()) else {
            return;
        };
        // A server works inside its cluster's directory.
        let is_unrelated = fs::read_link(format!("/proc/{pid}/cwd"))
            .is_ok_and(|inside| inside != canonical(self.location.data()));
        if is_unrelated || has_ended(pid) {
            tracing::info!(pid, "postmaster.pid names no running server; removing it");
            let _ = fs::remove_file(path);
        }
    }
}

fn canonical(path: PathBuf) -> PathBuf {
    fs::canonicalize(&path).unwrap_or(path)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Starting up, recovering, shutting down, or at its connection limit: running in any case.
fn is_starting(error: &sqlx::Error) -> bool {
    SqlCondition::of(error) == SqlCondition::RefusesConnections
}
