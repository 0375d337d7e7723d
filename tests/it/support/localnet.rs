//! A local chain as a child process, for tests that kill it, stop it, or only use it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::children::group_of_run;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_gridtokenx-localnet");

/// A start takes half a second on an idle machine, many times that beside other tests.
const START_MAX: Duration = Duration::from_secs(60);

/// Where a chain's state is.
#[derive(Clone, Debug)]
pub enum State {
    /// Lost when the process ends.
    Ephemeral,
    In(PathBuf),
}

impl From<&Path> for State {
    fn from(dir: &Path) -> Self {
        Self::In(dir.to_owned())
    }
}

/// A running chain. Dropped, it kills its own child and nothing else.
pub struct Localnet {
    pub rpc_url: String,
    pub ws_url: String,
    pub pid: i32,
    pub genesis_hash: String,
    /// The slot that was open when it became ready.
    pub slot: u64,
    state: State,
    child: Child,
}

impl Localnet {
    /// Starts a chain on two free ports.
    pub async fn start(state: impl Into<State>) -> Self {
        Self::start_with(state, "127.0.0.1:0", &[]).await
    }

    /// Starts a chain on `rpc_addr` with more environment, for instance `FAILPOINTS`.
    pub async fn start_with(
        state: impl Into<State>,
        rpc_addr: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let state = state.into();
        let mut command = Command::new(PROGRAM);
        command.arg("--rpc-addr").arg(rpc_addr);
        match &state {
            State::Ephemeral => command.arg("--ephemeral"),
            State::In(dir) => command.arg("--data-dir").arg(dir),
        };
        let mut child = command
            .env("LOCALNET_LOG", "error")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(group_of_run())
            .spawn()
            .expect("gridtokenx-localnet starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(START_MAX, lines.next_line())
            .await
            .expect("gridtokenx-localnet is ready in time")
            .unwrap()
            .expect("gridtokenx-localnet says that it is ready");
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_else(|| panic!("no {name} in {line:?}"))
                .to_owned()
        };
        Self {
            rpc_url: field("rpc"),
            ws_url: field("ws"),
            pid: i32::try_from(child.id().unwrap()).unwrap(),
            genesis_hash: field("genesis"),
            slot: field("slot").parse().unwrap(),
            state,
            child,
        }
    }

    /// A client at `confirmed`.
    pub fn client(&self) -> RpcClient {
        RpcClient::new_with_commitment(self.rpc_url.clone(), CommitmentConfig::confirmed())
    }

    /// Kills it with SIGKILL and waits until it has ended.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().await.unwrap();
    }

    /// Ends it in order; the status is what a supervisor would see.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().await.unwrap()
    }

    /// Starts it again on the same port and state. It must have ended before.
    pub async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    pub async fn restart_with(&mut self, environment: &[(&str, &str)]) {
        let rpc_addr = self.rpc_addr().to_owned();
        *self = Self::start_with(self.state.clone(), &rpc_addr, environment).await;
    }

    pub fn rpc_addr(&self) -> &str {
        self.rpc_url.strip_prefix("http://").unwrap()
    }

    fn signal(&self, signal: Signal) {
        // Not yet waited for, so the id cannot be another process'.
        if self.child.id().is_some() {
            kill(Pid::from_raw(self.pid), signal).unwrap();
        }
    }
}

/// An empty directory, removed at the end.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let unique = format!("gridtokenx-{name}-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).unwrap();
        Self(path)
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
