//! `gridtokenx listen`, as a person calls it: what it prints is the feed, whatever becomes of the connection.

use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};

use gridtokenx::commands::running::Running;
use gridtokenx::outbox::{Event, EventFields, EventType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::support::events::{events_of, last_seq, numbers_of, publish};
use crate::support::server::program;
use crate::support::wait::LIMIT;
use crate::support::{Grid, Server, eventually};

/// `gridtokenx listen` as a child. Dropped, it kills its own child and nothing else.
struct Listening {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    remarks: Lines<BufReader<ChildStderr>>,
    heard: Vec<i64>,
}

impl Listening {
    /// Starts it and waits until it says that it listens.
    async fn start(grid: &Grid, arguments: &[&str]) -> Listening {
        let mut child = program()
            .args(["listen", "--json"])
            .args(arguments)
            .envs(grid.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .expect("gridtokenx starts");
        let mut listening = Listening {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            remarks: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
            heard: Vec::new(),
        };
        let remark = listening.remark().await;
        assert!(remark.starts_with("Listening at ws://"), "{remark}");
        listening
    }

    async fn remark(&mut self) -> String {
        let remark = tokio::time::timeout(LIMIT, self.remarks.next_line()).await;
        remark
            .expect("it says something")
            .unwrap()
            .expect("it runs")
    }

    /// Reads what it prints up to this number: each later than the one before.
    async fn until(&mut self, seq: i64) {
        while self.heard.last() != Some(&seq) {
            let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
            let line = line
                .unwrap_or_else(|_| panic!("{seq} is not printed after {:?}", self.heard))
                .unwrap()
                .expect("it runs");
            let event: Value = serde_json::from_str(&line).unwrap();
            let heard = event["seq"].as_i64().unwrap();
            assert!(self.heard.last() < Some(&heard), "{heard} again: {line}");
            self.heard.push(heard);
        }
    }

    async fn ended(mut self) -> ExitStatus {
        let pid = self.child.id().expect("it was not waited for");
        kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        ended.expect("it ends").unwrap()
    }
}

/// Below the ports that the kernel gives to outgoing connections, so that nobody has it while the service is away.
fn port() -> u16 {
    (0..1_000)
        .map(|_| rand::random_range(30_000..32_768))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

/// What happens, without the rooms in which it usually does.
struct Happenings<'a> {
    grid: &'a Grid,
    of_anna: usize,
}

impl Happenings<'_> {
    async fn for_anna(&mut self, count: usize) {
        publish(&self.grid.pool, &events_of("anna", count)).await;
        self.of_anna += count;
    }

    /// Something for ben, for nobody and for anna; gives the number of her last one, once all of hers have theirs.
    async fn for_all(&mut self) -> i64 {
        let nobodys = Event::new(EventType::BatchMintingCompleted, &EventFields::default());
        publish(&self.grid.pool, &events_of("ben", 1)).await;
        publish(&self.grid.pool, &[nobodys]).await;
        self.for_anna(2).await;
        eventually("anna's events are numbered", async || {
            let numbers = numbers_of(&self.grid.pool, "anna").await;
            let is_complete = numbers.len() == self.of_anna;
            numbers.last().copied().filter(|_| is_complete)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_and_an_admin_hear_each_of_their_events_once_while_the_service_comes_and_goes() {
    let grid = Grid::without_service(&[]).await;
    let port = port();
    let address = format!("127.0.0.1:{port}");
    let serve = async || -> Server { grid.spawn(&[("HTTP_ADDR", &address)]).await };
    let mut server = serve().await;
    let running = Running {
        api_url: server.api_url.clone(),
        rpc_url: grid.rpc_url.clone(),
        ws_url: format!("ws://{address}/ws"),
        database_url: grid.database_url.clone(),
        mint_address: "11111111111111111111111111111111".to_owned(),
        pid: server.pid(),
    };
    running.write(grid.data_dir.path()).unwrap();
    let mut happenings = Happenings {
        grid: &grid,
        of_anna: 0,
    };
    let first = happenings.for_all().await;

    // One from the beginning, one from now on.
    let mut owner = Listening::start(&grid, &["--sub", "anna", "--after", "0"]).await;
    let mut admin = Listening::start(&grid, &[]).await;
    let head = last_seq(&grid.pool).await;
    let live = happenings.for_all().await;
    owner.until(live).await;
    admin.until(live).await;
    assert!((first + 1..=head + 1).contains(&admin.heard[0]));

    // The service ends in order, and something is committed while it is away; then it is killed in the middle of it.
    assert!(server.terminate().await.success());
    happenings.for_anna(1).await;
    server = serve().await;
    let after_end = happenings.for_all().await;
    owner.until(after_end).await;
    admin.until(after_end).await;
    happenings.for_anna(1).await;
    server.kill9().await;
    happenings.for_anna(1).await;
    let _server = serve().await;
    let last = happenings.for_all().await;
    owner.until(last).await;
    admin.until(last).await;

    assert_eq!(owner.heard, numbers_of(&grid.pool, "anna").await);
    // An admin's numbers have no holes.
    let all: Vec<i64> = (admin.heard[0]..=last).collect();
    assert_eq!(admin.heard, all);
    for listening in [owner, admin] {
        assert!(listening.ended().await.success());
    }
}
