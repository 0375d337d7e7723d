//! The local chain of `make run`: the program `gridtokenx-localnet`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::Url;

use super::child_process::ChildProcess;
use super::error::EmbeddedError;
use super::log_file::{LogFile, last_error};

const PROGRAM: &str = "gridtokenx-localnet";
/// A chain of some ten thousand transactions is restored within seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const SHUTDOWN: [(Signal, Duration); 1] = [(Signal::SIGTERM, Duration::from_secs(15))];

/// A running local chain. Dropping it leaves it running; the next start adopts it.
#[derive(Debug)]
pub struct Localnet {
    setup: LocalnetSetup,
    process: ChildProcess,
    ready: Ready,
}

/// The ready file of the chain.
#[derive(Debug, Deserialize)]
struct Ready {
    rpc_url: Url,
    ws_url: Url,
    pid: u32,
}

impl Ready {
    fn rpc_addr(&self) -> Option<SocketAddr> {
        self.rpc_url.socket_addrs(|| None).ok()?.first().copied()
    }
}

impl Localnet {
    /// Adopts the chain of this data directory where it runs on this address, starts it otherwise, and returns once it
    /// answers, at most 60 s later. `rpc_addr` with port 0 takes any free port; pubsub is on the next one.
    pub async fn start(rpc_addr: SocketAddr, data_dir: &Path) -> Result<Localnet, EmbeddedError> {
        let setup = LocalnetSetup::prepare(data_dir)?;
        let (process, ready) = match setup.adopt(rpc_addr).await {
            Some(running) => running,
            None => setup.launch(rpc_addr).await?,
        };
        Ok(Localnet {
            setup,
            process,
            ready,
        })
    }

    /// Stops the chain that an earlier process left running on this data directory, if any. Returns whether there was one.
    pub async fn stop_leftover(data_dir: &Path) -> bool {
        let found = fs::canonicalize(chain_in(data_dir))
            .ok()
            .and_then(|chain| ChildProcess::find(PROGRAM, &chain));
        match found {
            Some(mut process) => {
                process.stop(&SHUTDOWN).await;
                true
            }
            None => false,
        }
    }

    pub fn rpc_url(&self) -> &Url {
        &self.ready.rpc_url
    }

    pub fn ws_url(&self) -> &Url {
        &self.ready.ws_url
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the chain has ended, for whatever reason.
    pub async fn exited(&mut self) {
        self.process.exited().await;
    }

    /// Restarts the chain on the same address and state if it has ended, and returns whether it had. A chain that only hangs is
    /// not restarted. Also truncates its log, so call it regularly in any case.
    pub async fn ensure_alive(&mut self) -> Result<bool, EmbeddedError> {
        self.setup.log.truncate_if_long();
        if !self.process.has_exited() {
            return Ok(false);
        }
        tracing::warn!(
            last_words = last_error(&self.setup.log.tail(0)),
            "the local chain has ended; restarting it"
        );
        let rpc_addr = self
            .ready
            .rpc_addr()
            .ok_or_else(|| self.setup.no_answer())?;
        (self.process, self.ready) = self.setup.launch(rpc_addr).await?;
        Ok(true)
    }

    /// Shuts the chain down in order, adopted or not; after 15 s it is killed, which loses at most one block.
    pub async fn stop(mut self) {
        self.process.stop(&SHUTDOWN).await;
    }
}

/// Everything that the chain is started with.
#[derive(Debug)]
struct LocalnetSetup {
    program: PathBuf,
    chain: PathBuf,
    ready_file: PathBuf,
    log: LogFile,
    client: reqwest::Client,
}

fn chain_in(data_dir: &Path) -> PathBuf {
    data_dir.join("localnet")
}

impl LocalnetSetup {
    fn prepare(data_dir: &Path) -> Result<LocalnetSetup, EmbeddedError> {
        let chain = chain_in(data_dir);
        fs::create_dir_all(&chain).map_err(EmbeddedError::file("cannot create", &chain))?;
        // Started with the full path, a running chain is recognised by the next start, whatever its working directory.
        let chain =
            fs::canonicalize(&chain).map_err(EmbeddedError::file("cannot resolve", &chain))?;
        Ok(LocalnetSetup {
            program: program()?,
            ready_file: chain.with_extension("ready"),
            log: LogFile::new(chain.with_extension("log")),
            chain,
            client: reqwest::Client::new(),
        })
    }

    async fn adopt(&self, rpc_addr: SocketAddr) -> Option<(ChildProcess, Ready)> {
        let mut process = ChildProcess::find(PROGRAM, &self.chain)?;
        match self.wait_for_answer(&mut process, self.log.size()).await {
            Ok(ready) if rpc_addr.port() == 0 || ready.rpc_addr() == Some(rpc_addr) => {
                tracing::info!(pid = process.pid(), rpc_url = %ready.rpc_url, "adopted the running local chain");
                return Some((process, ready));
            }
            Ok(ready) => tracing::info!(
                rpc_url = %ready.rpc_url,
                "the running local chain listens on another address; restarting it"
            ),
            Err(error) => {
                tracing::warn!(%error, "the running local chain cannot be used; stopping it")
            }
        }
        process.stop(&SHUTDOWN).await;
        None
    }

    async fn launch(&self, rpc_addr: SocketAddr) -> Result<(ChildProcess, Ready), EmbeddedError> {
        for port in [rpc_addr.port(), rpc_addr.port().saturating_add(1)] {
            let addr = SocketAddr::new(rpc_addr.ip(), port);
            if rpc_addr.port() != 0 && TcpListener::bind(addr).is_err() {
                return Err(EmbeddedError::AddressInUse {
                    addr,
                    what: "the local chain (LOCALNET_RPC_ADDR)",
                });
            }
        }
        // A predecessor's file names a process that has ended.
        match fs::remove_file(&self.ready_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(EmbeddedError::file("cannot remove", &self.ready_file)(
                    error,
                ));
            }
            Ok(()) | Err(_) => {}
        }
        let start = self.log.size();
        let mut process = ChildProcess::spawn(&mut self.command(rpc_addr)?)
            .map_err(EmbeddedError::file("cannot run", &self.program))?;
        match self.wait_for_answer(&mut process, start).await {
            Ok(ready) => Ok((process, ready)),
            Err(error) => {
                process.stop(&SHUTDOWN).await;
                Err(error)
            }
        }
    }

    fn command(&self, rpc_addr: SocketAddr) -> Result<Command, EmbeddedError> {
        let output = self.log.open()?;
        let errors = output
            .try_clone()
            .map_err(EmbeddedError::file("cannot open", self.log.path()))?;
        let mut command = Command::new(&self.program);
        command
            .args(["--rpc-addr", &rpc_addr.to_string()])
            .arg("--data-dir")
            .arg(&self.chain)
            .arg("--ready-file")
            .arg(&self.ready_file)
            // It needs no secrets, and every process of the same user can read its environment.
            .env_remove("JWT_SECRET")
            .env_remove("DATABASE_URL")
            .stdout(output)
            .stderr(errors);
        Ok(command)
    }

    async fn wait_for_answer(
        &self,
        process: &mut ChildProcess,
        log_start: u64,
    ) -> Result<Ready, EmbeddedError> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if process.has_exited() {
                return Err(EmbeddedError::Exited {
                    program: "the local chain",
                    reason: last_error(&self.log.tail(log_start)),
                    log: self.log.path().to_owned(),
                });
            }
            if let Some(ready) = self.ready_of(process.pid())
                && self.answers(&ready.rpc_url).await
            {
                return Ok(ready);
            }
            sleep(POLL_INTERVAL).await;
        }
        Err(self.no_answer())
    }

    fn ready_of(&self, pid: u32) -> Option<Ready> {
        let text = fs::read_to_string(&self.ready_file).ok()?;
        let ready: Ready = serde_json::from_str(&text).ok()?;
        (ready.pid == pid).then_some(ready)
    }

    async fn answers(&self, rpc_url: &Url) -> bool {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "getVersion"});
        let query = async {
            let post = self.client.post(rpc_url.clone()).timeout(ANSWER_LIMIT);
            let answer = post.json(&request).send().await?;
            answer.json::<Value>().await
        };
        query
            .await
            .is_ok_and(|answer| answer.pointer("/result/solana-core").is_some())
    }

    fn no_answer(&self) -> EmbeddedError {
        EmbeddedError::NoAnswer {
            program: "the local chain",
            limit: START_LIMIT,
            log: self.log.path().to_owned(),
        }
    }
}

/// `gridtokenx-localnet` beside this program (tests run one directory below).
fn program() -> Result<PathBuf, EmbeddedError> {
    let own = std::env::current_exe()
        .map_err(EmbeddedError::file("cannot find", Path::new("gridtokenx")))?;
    let dir = own.parent().unwrap_or(Path::new("."));
    let dir = if dir.ends_with("deps") {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    let path = dir.join(PROGRAM);
    if path.is_file() {
        Ok(path)
    } else {
        Err(EmbeddedError::NoLocalnet { path })
    }
}
