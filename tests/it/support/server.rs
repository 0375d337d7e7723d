//! The real program as a process, for tests that kill it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use gridtokenx::meters::Role;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::children::group_of_run;
use super::client::Api;
use super::localnet::TempDir;
use super::wait::{LIMIT, eventually};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_gridtokenx");

/// `gridtokenx` without this process' environment, so that nothing set here leaks into what is tested.
pub fn program() -> Command {
    Command::from(blocking_program())
}

/// The same, for a test that waits without a runtime.
pub fn blocking_program() -> std::process::Command {
    // Where a program built with instruments writes which lines it ran: `make coverage`.
    const COVERAGE_FILE: &str = "LLVM_PROFILE_FILE";
    let mut command = std::process::Command::new(PROGRAM);
    command
        .env_clear()
        .envs(std::env::var_os(COVERAGE_FILE).map(|file| (COVERAGE_FILE, file)));
    command
}

const LOG_FILE: &str = "log";

/// `gridtokenx serve` as a child. Dropped, it kills its own child and nothing else.
pub struct Server {
    pub api_url: String,
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts it and waits until it serves.
    pub async fn spawn(
        environment: impl IntoIterator<Item = (&'static str, String)>,
        more: &[(&str, &str)],
    ) -> Server {
        let dir = TempDir::new("server");
        let file = dir.path().join("address");
        // TEST_LOG shows the logs of all processes; otherwise a test that wants them sets LOG_LEVEL, and reads `log`.
        let log = match std::env::var_os("TEST_LOG") {
            Some(_) => Stdio::inherit(),
            None => std::fs::File::create(dir.path().join(LOG_FILE))
                .unwrap()
                .into(),
        };
        let mut child = program()
            .arg("serve")
            .arg("--ready-file")
            .arg(&file)
            .env(
                "LOG_LEVEL",
                std::env::var("TEST_LOG").as_deref().unwrap_or("off"),
            )
            .envs(environment)
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .process_group(group_of_run())
            .spawn()
            .expect("gridtokenx starts");
        let api_url = eventually("the service says its address", async || {
            if let Some(status) = child.try_wait().unwrap() {
                let log = std::fs::read_to_string(dir.path().join(LOG_FILE)).unwrap_or_default();
                panic!("gridtokenx serve ended with {status} before it served: {log}");
            }
            std::fs::read_to_string(&file).ok()
        })
        .await;
        Server {
            api_url: api_url.trim().to_owned(),
            child,
            dir,
        }
    }

    /// Starts it and waits until it exits, which may be before it serves.
    pub async fn run_to_its_end(
        environment: impl IntoIterator<Item = (&'static str, String)>,
        more: &[(&str, &str)],
    ) -> ExitStatus {
        let mut child = program()
            .arg("serve")
            .env("LOG_LEVEL", "off")
            .envs(environment)
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(group_of_run())
            .spawn()
            .expect("gridtokenx starts");
        tokio::time::timeout(LIMIT, child.wait())
            .await
            .expect("the service ends")
            .unwrap()
    }

    pub fn user(&self, subject: &str) -> Api {
        Api::new(&self.api_url, subject, Role::User)
    }

    pub fn admin(&self) -> Api {
        Api::new(&self.api_url, "an admin", Role::Admin)
    }

    /// The status page, once that many workers are alive.
    pub async fn until_workers_alive(&self, wanted: usize) -> Value {
        eventually(&format!("{wanted} workers are alive"), async || {
            let path = "/api/admin/tokenization/status";
            let status = self.admin().get(path).await.ok();
            (status["workers_alive"] == wanted).then_some(status)
        })
        .await
    }

    /// The process' id; 0 once it was waited for.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(LOG_FILE)).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        // Not yet waited for, so the id cannot be another process'.
        if let Some(pid) = self.child.id() {
            kill(Pid::from_raw(pid as i32), signal).unwrap();
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it with SIGKILL.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().await.unwrap();
    }

    /// Waits until it exits.
    pub async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(120), self.child.wait())
            .await
            .expect("the service ends")
            .unwrap()
    }

    /// Sends SIGTERM and returns the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }
}

/// Runs `gridtokenx audit --json` and returns its report; the exit status must agree with it.
pub async fn audit(environment: &[(&'static str, String)]) -> Value {
    let output = program()
        .args(["audit", "--json"])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .await
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "the audit printed no JSON ({error}): {}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    assert_eq!(output.status.code(), Some(i32::from(report["ok"] != true)));
    report
}
