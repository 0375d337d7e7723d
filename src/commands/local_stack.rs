//! The programs that the service needs: the private database and the local chain, unless the configuration names others.
//!
//! Invariant: a program that exits while `gridtokenx run` runs is restarted on the same port and state. A program that hangs is
//! left alone, because a hanging program cannot be distinguished from a busy one. Whether started or adopted, both end when
//! `gridtokenx run` ends.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Secret};
use crate::domain::{Backoff, Jitter, Retries};
use crate::embedded::{EmbeddedError, Localnet, PostgresCluster, PostgresOptions};

const RESTART_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(200), Duration::from_secs(10))
        .with_jitter(Jitter::HALF_TO_FULL);
/// How often a running program is checked, which also truncates its log.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The programs that this process supervises.
pub struct LocalStack {
    chain: Option<Supervisor>,
    database: Option<Supervisor>,
}

/// A program that is kept running.
trait Program: Send + 'static {
    const NAME: &'static str;

    fn exited(&mut self) -> impl Future<Output = ()> + Send;
    fn ensure_alive(&mut self) -> impl Future<Output = Result<bool, EmbeddedError>> + Send;
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl Program for PostgresCluster {
    const NAME: &'static str = "the private database";

    async fn exited(&mut self) {
        PostgresCluster::exited(self).await;
    }

    async fn ensure_alive(&mut self) -> Result<bool, EmbeddedError> {
        PostgresCluster::ensure_alive(self).await
    }

    async fn stop(self) {
        PostgresCluster::stop(self).await;
    }
}

impl Program for Localnet {
    const NAME: &'static str = "the local chain";

    async fn exited(&mut self) {
        Localnet::exited(self).await;
    }

    async fn ensure_alive(&mut self) -> Result<bool, EmbeddedError> {
        Localnet::ensure_alive(self).await
    }

    async fn stop(self) {
        Localnet::stop(self).await;
    }
}

/// The task that keeps one program running.
struct Supervisor {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Keeps the program running until [`stop`](Self::stop), which ends it.
    fn start<P: Program>(mut program: P) -> Supervisor {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            keep_running(&mut program, &stopping).await;
            program.stop().await;
        });
        Supervisor { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "supervisor stopped unexpectedly");
        }
    }
}

async fn keep_running<P: Program>(program: &mut P, stopping: &CancellationToken) {
    let mut retries = Retries::new(RESTART_BACKOFF);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = program.exited() => {}
            () = sleep(CHECK_EVERY) => retries.reset(),
        }
        // Never cancelled: a program that was just started would be left without a supervisor.
        if let Err(error) = program.ensure_alive().await {
            tracing::error!(%error, "{} cannot be restarted; trying again", P::NAME);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(retries.next_delay(rand::random())) => {}
            }
        }
    }
}

impl LocalStack {
    /// Starts or adopts what is needed, and fills in its addresses.
    pub async fn start(config: &mut Config) -> Result<LocalStack, EmbeddedError> {
        let data_dir = config.data_dir.path.clone();
        let mut stack = LocalStack {
            chain: None,
            database: None,
        };
        let started = stack.start_missing(&data_dir, config).await;
        match started {
            Ok(()) => Ok(stack),
            Err(error) => {
                stack.stop().await;
                Err(error)
            }
        }
    }

    async fn start_missing(
        &mut self,
        data_dir: &Path,
        config: &mut Config,
    ) -> Result<(), EmbeddedError> {
        if config.database.url.is_none() {
            let options = PostgresOptions::durable(database_dir(data_dir));
            let cluster = PostgresCluster::start(options).await?;
            config.database.url = Some(Secret::new(cluster.database_url()));
            self.database = Some(Supervisor::start(cluster));
        }
        if config.solana.rpc_urls.is_empty() {
            let localnet = Localnet::start(config.localnet.rpc_addr, data_dir).await?;
            let rpc_url = localnet.rpc_url().as_str().trim_end_matches('/');
            config.solana.rpc_urls = vec![Secret::new(rpc_url)];
            self.chain = Some(Supervisor::start(localnet));
        }
        Ok(())
    }

    /// Ends both, the chain first: the database has the ledger.
    pub async fn stop(self) {
        for supervisor in [self.chain, self.database].into_iter().flatten() {
            supervisor.stop().await;
        }
    }

    /// Ends the programs that a killed `gridtokenx run` left in this data directory.
    pub async fn stop_leftovers(data_dir: &Path) {
        Localnet::stop_leftover(data_dir).await;
        // A cluster that cannot be found has no server to stop.
        if let Err(error) = PostgresCluster::stop_leftover(&database_dir(data_dir)).await {
            tracing::warn!(%error, "no database cluster found in the data directory");
        }
    }
}

fn database_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}
