//! `gridtokenx run`, as a person or a script calls it: the real program, its own database, its own chain.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::secrets::{assert_absent, key_forms, token_forms};
use crate::support::server::blocking_program;

/// A start makes a database cluster, on a machine that compiles meanwhile.
const START_LIMIT: Duration = Duration::from_secs(120);
/// A play of one day, finality and audit included.
const PLAY_LIMIT: Duration = Duration::from_secs(180);
const END_LIMIT: Duration = Duration::from_secs(60);
/// A real day of the data file, as one meter.
const DAY: &str = "2011-12-24";
/// Everything that a log may ever hold.
const LOUD: [&str; 2] = ["--log-level", "trace"];

/// A data directory and the addresses of the systems that are started on it.
struct Place {
    folder: PathBuf,
    http_port: u16,
    rpc_port: u16,
}

impl Place {
    fn new() -> Place {
        let folder = std::env::temp_dir().join(format!("gridtokenx-run-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        // RPC takes the next port too.
        let (rpc_port, http_port) = (two_free_ports(), free_port());
        Place {
            folder,
            http_port,
            rpc_port,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = blocking_program();
        command
            .args(arguments)
            .current_dir(&self.folder)
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .env("GRIDTOKENX_DATA_DIR", self.data_dir())
            .env("HTTP_ADDR", format!("127.0.0.1:{}", self.http_port))
            .env("LOCALNET_RPC_ADDR", format!("127.0.0.1:{}", self.rpc_port))
            .stdin(Stdio::null());
        command
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let log =
            fs::File::create(self.folder.join(format!("{}.log", uuid::Uuid::new_v4()))).unwrap();
        let child = self
            .command(&[&["run"], arguments].concat())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Program { child }
    }

    /// Runs a command to its end.
    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn running(&self) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.data_dir().join("running.json")).ok()?).ok()
    }

    fn wait_until_running(&self, program: &mut Program) -> Value {
        let own_pid = u64::from(program.child.id());
        wait_for("running.json of the started program", START_LIMIT, || {
            assert!(
                program.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                self.logs()
            );
            self.running()
                .filter(|running| running["pid"].as_u64() == Some(own_pid))
        })
    }

    fn report(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.join(name)).unwrap()).unwrap()
    }

    /// Command lines of all processes that work on this data directory.
    fn processes(&self) -> Vec<(Pid, String)> {
        let data_dir = self.data_dir().display().to_string();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&data_dir).then(|| (Pid::from_raw(pid), line))
        })
        .collect()
    }

    fn process(&self, program: &str) -> Option<Pid> {
        let is_it = |line: &str| {
            let called = line.split(' ').next().unwrap_or_default();
            Path::new(called)
                .file_name()
                .is_some_and(|name| name == program)
        };
        self.processes()
            .into_iter()
            .find(|(_, line)| is_it(line))
            .map(|(pid, _)| pid)
    }

    /// The secrets that the data directory keeps are in no log, and no token is.
    fn assert_no_secret_is_shown(&self) {
        let data_dir = self.data_dir();
        let kept = |file: &str| {
            let text = fs::read_to_string(data_dir.join(file)).unwrap();
            text.trim_end().to_owned()
        };
        let token = self.output(&["token", "--role", "admin"]).stdout;
        let mut secrets = token_forms(String::from_utf8(token).unwrap().trim_end());
        secrets.extend(key_forms(&data_dir.join("mint-authority.json")));
        secrets.extend([kept("jwt-secret"), kept("postgres/password")]);
        let logs = self.logs();
        let of_children = ["postgres/postgres.log", "localnet.log"].map(kept);
        for log in of_children.iter().chain([&logs]) {
            assert_absent(log, &secrets);
        }
    }

    /// The output of all started programs.
    fn logs(&self) -> String {
        let files = fs::read_dir(&self.folder).unwrap().filter_map(Result::ok);
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default())
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only a failed test leaves any.
        for (pid, _) in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `gridtokenx run`; killed when the test fails.
struct Program {
    child: Child,
}

impl Program {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn wait(&mut self, what: &str, limit: Duration) -> ExitStatus {
        wait_for(what, limit, || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Below the ports that the system gives to outgoing connections: one of those could be taken between two starts.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

fn free_port() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if is_free(port) {
            return port;
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn two_free_ports() -> u16 {
    loop {
        let port = free_port();
        if is_free(port + 1) {
            return port;
        }
    }
}

fn wait_for<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The one sentence of a start that failed.
fn sentence(output: &Output) -> String {
    assert!(!output.status.success(), "it started");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(
        text.trim_end().lines().count(),
        1,
        "not one sentence: {text}"
    );
    text
}

#[test]
fn a_play_is_finalized_and_audited_once_and_a_later_one_finds_it_done() {
    let place = Place::new();
    let play = ["--day", DAY, "--speed", "max", "--exit", "--report"];

    let mut first = place.start(&[&play[..], &["first.json"], &LOUD].concat());
    let status = first.wait("the first play", START_LIMIT + PLAY_LIMIT);
    assert!(status.success(), "{status}: {}", place.logs());
    let report = place.report("first.json");
    let submitted = report["readings_submitted"].as_u64().unwrap();
    assert!(submitted > 10, "{report}");
    for accepted in ["readings_accepted", "readings_minted", "readings_finalized"] {
        assert_eq!(
            report[accepted].as_u64(),
            Some(submitted),
            "{accepted}: {report}"
        );
    }
    assert_eq!(report["day"], DAY);
    assert_eq!(report["base_units_minted"], report["token_supply"]);
    assert_eq!(report["audit"]["ok"], true, "{report}");
    assert_eq!(report["audit"]["differences"], serde_json::json!([]));
    assert!(
        report["submit_to_minted_ms"]["p50"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert!(
        place.processes().is_empty(),
        "left running: {:?}",
        place.processes()
    );
    assert!(place.running().is_none());

    assert!(place.logs().contains("DEBUG"), "it looked closely");
    place.assert_no_secret_is_shown();

    let mut second = place.start(&[&play[..], &["second.json"]].concat());
    let status = second.wait("the second play", START_LIMIT + PLAY_LIMIT);
    assert!(status.success(), "{status}: {}", place.logs());
    let again = place.report("second.json");
    for kept in [
        "readings_accepted",
        "readings_finalized",
        "token_supply",
        "transactions",
        "mint_address",
        "transaction_format",
    ] {
        assert_eq!(again[kept], report[kept], "{kept}");
    }
    assert_eq!(report["transaction_format"], "v1");
}

#[test]
fn a_start_after_a_kill_serves_the_same_data_and_shuts_down_in_order() {
    let place = Place::new();
    let mut first = place.start(&["--no-play"]);
    let before = place.wait_until_running(&mut first);
    let chain = place.process("gridtokenx-localnet").expect("a chain");

    // While it runs, no other process may work in its data directory.
    let refused = sentence(&place.output(&["run", "--no-play"]));
    assert!(
        refused.contains("is in use by another gridtokenx"),
        "{refused}"
    );

    first.signal(Signal::SIGKILL);
    first.wait("the killed program", END_LIMIT);
    assert_eq!(
        place.process("gridtokenx-localnet"),
        Some(chain),
        "the chain survives"
    );

    // The chain ends while the program runs: the report about it contains no secret either.
    let mut second = place.start(&[&["--no-play"][..], &LOUD].concat());
    let after = place.wait_until_running(&mut second);
    assert_eq!(after["mint_address"], before["mint_address"]);
    assert_eq!(after["rpc_url"], before["rpc_url"]);

    // A program that ends is started again at the same place.
    let chain = place.process("gridtokenx-localnet").expect("a chain");
    kill(chain, Signal::SIGKILL).unwrap();
    wait_for("another chain", START_LIMIT, || {
        place
            .process("gridtokenx-localnet")
            .filter(|pid| *pid != chain)
    });

    second.signal(Signal::SIGTERM);
    let status = second.wait("the end", END_LIMIT);
    assert_eq!(status.code(), Some(0), "{}", place.logs());
    assert!(
        place.processes().is_empty(),
        "left running: {:?}",
        place.processes()
    );
    assert!(place.running().is_none());
    place.assert_no_secret_is_shown();
}

#[test]
fn a_failure_to_start_is_reported_in_one_sentence() {
    let place = Place::new();

    let taken = TcpListener::bind(("127.0.0.1", place.http_port)).unwrap();
    let refused = sentence(&place.output(&["run", "--no-play"]));
    assert!(
        refused.contains(&format!("HTTP_ADDR=127.0.0.1:{}", place.http_port)),
        "{refused}"
    );
    drop(taken);

    let refused = sentence(&place.output(&["run", "--day", "2020-01-01"]));
    assert!(refused.contains("has no day 2020-01-01"), "{refused}");

    let refused = sentence(&place.output(&["run", "--report", "nowhere/report.json"]));
    assert!(refused.contains("nowhere is not a directory"), "{refused}");

    fs::write(place.data_dir().join("format"), "99\n").unwrap();
    let refused = sentence(&place.output(&["run", "--no-play"]));
    assert!(refused.contains("has format \"99\""), "{refused}");

    let refused = sentence(&place.output(&["listen"]));
    assert!(refused.contains("no system is running"), "{refused}");
    assert!(
        place.processes().is_empty(),
        "left running: {:?}",
        place.processes()
    );
}
