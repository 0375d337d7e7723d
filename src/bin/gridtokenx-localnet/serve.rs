//! Runs the chain: starts it by the flags, reports when it answers, and stops it on a signal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_sdk::hash::Hash;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::chain::Chain;
use crate::data_dir::DataDir;
use crate::error::{LocalnetError, StoreError};
use crate::flags::Flags;
use crate::ports::Addresses;
use crate::store::{FORMAT_VERSION, Store};

/// A start takes less than a second, more on a machine that compiles on all cores at the same time.
const START_MAX: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// The callers that stop this program wait at least two seconds.
const STOP_MAX: Duration = Duration::from_millis(1_800);

pub fn run(flags: Flags) -> Result<(), LocalnetError> {
    log_to_stderr(&flags.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Two: one may wait for the chain while the other receives the signal to stop.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| LocalnetError::Start(error.to_string()))?;
    let result = runtime.block_on(serve(flags));
    // surfpool's threads never end; the process does.
    runtime.shutdown_background();
    result
}

async fn serve(flags: Flags) -> Result<(), LocalnetError> {
    let mut signals = Signals::listen()?;
    let data_dir = flags.data_dir.as_deref().map(DataDir::lock).transpose()?;
    let addresses = Addresses::claim(flags.rpc_addr)?;
    if let Some(file) = &flags.ready_file {
        // A file of an earlier start would report a chain as ready that has ended.
        let _ = std::fs::remove_file(file);
    }
    let location = data_dir.as_ref().map(|dir| dir.path().to_owned());
    let store = Arc::new(open_store(data_dir.as_ref())?);
    let mut chain = Chain::start(store, &addresses, flags.parameters(), {
        let location = location.clone();
        move |error| end_without_store(location.as_deref(), error)
    })?;

    tokio::select! {
        () = signals.stop() => return stop(chain).await,
        answer = until_answering(&mut chain, &addresses) => answer?,
    }
    let clock = tokio::spawn(Chain::keep_time(chain.locker()));
    announce(&chain, &addresses, flags.ready_file.as_deref())?;

    tokio::select! {
        () = signals.stop() => {
            clock.abort();
            stop(chain).await?;
            // The lock is held until the newest block is written.
            drop(data_dir);
            Ok(())
        }
        reason = &mut chain.ended => Err(LocalnetError::Stopped(
            reason.unwrap_or_else(|_| "surfpool panicked".to_owned()),
        )),
    }
}

fn log_to_stderr(filter: &str) -> Result<(), LocalnetError> {
    let filter = EnvFilter::try_new(filter).map_err(|error| LocalnetError::LogFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would report a closed stderr on that stderr, and panic.
        .log_internal_errors(false)
        .init();
    Ok(())
}

fn open_store(data_dir: Option<&DataDir>) -> Result<Store, LocalnetError> {
    let Some(data_dir) = data_dir else {
        return Store::in_memory().map_err(|error| LocalnetError::Start(error.to_string()));
    };
    Store::open(&data_dir.store_file()).map_err(|error| {
        let dir = data_dir.path().to_owned();
        match error {
            StoreError::OtherVersion(found) => LocalnetError::OtherVersion {
                dir,
                found,
                expected: FORMAT_VERSION,
            },
            source => LocalnetError::Store { dir, source },
        }
    })
}

/// A chain that cannot store its blocks must not continue: ends the process at once.
fn end_without_store(location: Option<&Path>, source: StoreError) {
    let dir = location.map_or_else(|| PathBuf::from("memory"), Path::to_owned);
    let error = LocalnetError::Store { dir, source };
    let _ = writeln!(std::io::stderr(), "gridtokenx-localnet: {error}");
    std::process::exit(1);
}

/// Waits until JSON-RPC answers with our genesis hash.
async fn until_answering(chain: &mut Chain, addresses: &Addresses) -> Result<(), LocalnetError> {
    let answering = async {
        tokio::select! {
            _ = &mut chain.started => {}
            reason = &mut chain.ended => {
                return Err(LocalnetError::Start(reason.unwrap_or_else(|_| "surfpool panicked".to_owned())));
            }
        }
        let client = RpcClient::new(addresses.rpc_url());
        loop {
            match client.get_genesis_hash().await {
                Ok(hash) => return check_genesis_hash(hash, chain.genesis_hash),
                Err(error) => tracing::debug!("the chain does not answer yet: {error}"),
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    };
    tokio::time::timeout(START_MAX, answering)
        .await
        .map_err(|_| LocalnetError::Start(format!("no answer within {} s", START_MAX.as_secs())))?
}

fn check_genesis_hash(answered: Hash, ours: Hash) -> Result<(), LocalnetError> {
    if answered == ours {
        return Ok(());
    }
    Err(LocalnetError::Start(format!(
        "another chain ({answered}) answers on its port"
    )))
}

fn announce(
    chain: &Chain,
    addresses: &Addresses,
    ready_file: Option<&Path>,
) -> Result<(), LocalnetError> {
    let (rpc_url, ws_url) = (addresses.rpc_url(), addresses.pubsub_url());
    if let Some(file) = ready_file {
        let line = serde_json::json!({
            "rpc_url": rpc_url,
            "ws_url": ws_url,
            "pid": std::process::id(),
        });
        // By rename: a reader sees the whole file or none.
        let unfinished = file.with_extension("unfinished");
        std::fs::write(&unfinished, format!("{line}\n"))
            .and_then(|()| std::fs::rename(&unfinished, file))
            .map_err(|source| LocalnetError::ReadyFile {
                file: file.to_owned(),
                source,
            })?;
    }
    // `println!` would panic when stdout is closed.
    let mut stdout = std::io::stdout();
    let _ = writeln!(
        stdout,
        "gridtokenx-localnet ready rpc={rpc_url} ws={ws_url} genesis={} slot={}",
        chain.genesis_hash, chain.slot
    );
    let _ = stdout.flush();
    Ok(())
}

async fn stop(chain: Chain) -> Result<(), LocalnetError> {
    tokio::time::timeout(STOP_MAX, chain.stop())
        .await
        .map_err(|_| LocalnetError::ShutdownTimedOut(STOP_MAX.as_millis()))?
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, LocalnetError> {
        let listen = |kind| signal(kind).map_err(|error| LocalnetError::Start(error.to_string()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. SIGHUP is received and ignored: the chain outlives the terminal.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
            }
        }
    }
}
