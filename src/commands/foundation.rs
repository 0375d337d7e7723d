//! What the service stands on: the private database and the local chain, as far as the configuration names no others.
//!
//! Invariant: a program that ends while `gridtokenx run` lives is started again on the same port and state; one that only
//! hangs is left alone, since nothing can tell a hanging program from a busy one. Whether started or adopted, both end when
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
/// A program that runs is visited this often, to keep its log short.
const VISIT_PERIOD: Duration = Duration::from_secs(60);

/// The programs that this process looks after.
pub struct Foundation {
    chain: Option<Watch>,
    database: Option<Watch>,
}

/// A program that is kept alive.
trait Kept: Send + 'static {
    const NAME: &'static str;

    fn exited(&mut self) -> impl Future<Output = ()> + Send;
    fn ensure_alive(&mut self) -> impl Future<Output = Result<bool, EmbeddedError>> + Send;
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl Kept for PostgresCluster {
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

impl Kept for Localnet {
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

struct Watch {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watch {
    /// Keeps the program alive until it is stopped, and then ends it.
    fn over<K: Kept>(mut kept: K) -> Watch {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move {
            keep_alive(&mut kept, &stopping).await;
            kept.stop().await;
        });
        Watch { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a supervisor ended by itself");
        }
    }
}

async fn keep_alive<K: Kept>(kept: &mut K, stopping: &CancellationToken) {
    let mut retries = Retries::new(RESTART_BACKOFF);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = kept.exited() => {}
            () = sleep(VISIT_PERIOD) => retries.reset(),
        }
        // Never cut short: a program that was just started would be left to nobody.
        if let Err(error) = kept.ensure_alive().await {
            tracing::error!(%error, "{} cannot be started again; trying on", K::NAME);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(retries.next_delay(rand::random())) => {}
            }
        }
    }
}

impl Foundation {
    /// Starts or adopts what is needed, and fills in its addresses.
    pub async fn start(config: &mut Config) -> Result<Foundation, EmbeddedError> {
        let data_dir = config.data_dir.path.clone();
        let mut foundation = Foundation {
            chain: None,
            database: None,
        };
        let started = foundation.start_missing(&data_dir, config).await;
        match started {
            Ok(()) => Ok(foundation),
            Err(error) => {
                foundation.stop().await;
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
            let options = PostgresOptions::durable(database_home(data_dir));
            let cluster = PostgresCluster::start(options).await?;
            config.database.url = Some(Secret::new(cluster.database_url()));
            self.database = Some(Watch::over(cluster));
        }
        if config.solana.rpc_urls.is_empty() {
            let localnet = Localnet::start(config.localnet.rpc_addr, data_dir).await?;
            let rpc_url = localnet.rpc_url().as_str().trim_end_matches('/');
            config.solana.rpc_urls = vec![Secret::new(rpc_url)];
            self.chain = Some(Watch::over(localnet));
        }
        Ok(())
    }

    /// Ends both, the chain first: the database keeps the books.
    pub async fn stop(self) {
        for watch in [self.chain, self.database].into_iter().flatten() {
            watch.stop().await;
        }
    }

    /// Ends what a killed predecessor left running in this data directory.
    pub async fn stop_leftovers(data_dir: &Path) {
        Localnet::stop_leftover(data_dir).await;
        // A cluster that cannot be found has no server to stop.
        if let Err(error) = PostgresCluster::stop_leftover(&database_home(data_dir)).await {
            tracing::warn!(%error, "nothing is known of a database here");
        }
    }
}

fn database_home(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}
