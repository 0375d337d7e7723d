//! `gridtokenx listen` as a user runs it: it prints the feed, whatever happens to the connection.

use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};

use gridtokenx::commands::running::Running;
use gridtokenx::outbox::{Event, EventFields, EventType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::support::children::group_of_run;
use crate::support::events::{events_of, last_seq, numbers_of, publish};
use crate::support::server::program;
use crate::support::wait::LIMIT;
use crate::support::{Grid, Server, eventually};

/// `gridtokenx listen` as a child process, which is killed when this is dropped.
struct Listening {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    notices: Lines<BufReader<ChildStderr>>,
    printed: Vec<i64>,
}

impl Listening {
    /// Starts it and waits until it reports that it listens.
    async fn start(grid: &Grid, arguments: &[&str]) -> Listening {
        let mut child = program()
            .args(["listen", "--json"])
            .args(arguments)
            .envs(grid.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(group_of_run())
            .spawn()
            .expect("gridtokenx starts");
        let mut listening = Listening {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            notices: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
            printed: Vec::new(),
        };
        let notice = listening.notice().await;
        assert!(notice.starts_with("Listening at ws://"), "{notice}");
        listening
    }

    async fn notice(&mut self) -> String {
        let notice = tokio::time::timeout(LIMIT, self.notices.next_line()).await;
        notice.expect("a notice in time").unwrap().expect("it runs")
    }

    /// Reads its output up to this number, which must rise from line to line.
    async fn until(&mut self, last: i64) {
        while self.printed.last() != Some(&last) {
            let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
            let line = line
                .unwrap_or_else(|_| panic!("{last} is not printed after {:?}", self.printed))
                .unwrap()
                .expect("it runs");
            let event: Value = serde_json::from_str(&line).unwrap();
            let seq = event["seq"].as_i64().unwrap();
            assert!(self.printed.last() < Some(&seq), "{seq} again: {line}");
            self.printed.push(seq);
        }
    }

    async fn ended(mut self) -> ExitStatus {
        let pid = self.child.id().expect("it was not waited for");
        kill(Pid::from_raw(pid as i32), Signal::SIGINT).unwrap();
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        ended.expect("it ends").unwrap()
    }
}

/// A port below those of outgoing connections, so that it stays free while the service is down.
fn port() -> u16 {
    (0..1_000)
        .map(|_| rand::random_range(30_000..32_768))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

/// Publishes events without the service.
struct Publisher<'a> {
    grid: &'a Grid,
    of_anna: usize,
}

impl Publisher<'_> {
    async fn for_anna(&mut self, count: usize) {
        publish(&self.grid.pool, &events_of("anna", count)).await;
        self.of_anna += count;
    }

    /// Publishes events of ben, of no user and of anna; returns the number of her last one, once all of hers are numbered.
    async fn for_all(&mut self) -> i64 {
        let batch = Event::new(EventType::BatchMintingCompleted, &EventFields::default());
        publish(&self.grid.pool, &events_of("ben", 1)).await;
        publish(&self.grid.pool, &[batch]).await;
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
async fn an_owner_and_an_admin_get_each_of_their_events_once_while_the_service_restarts() {
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
    let mut publisher = Publisher {
        grid: &grid,
        of_anna: 0,
    };
    let replayed = publisher.for_all().await;

    // One from the beginning, one from the head. What one has received live, the service counts in the head of the other.
    let mut owner = Listening::start(&grid, &["--sub", "anna", "--after", "0"]).await;
    owner.until(replayed).await;
    let first = publisher.for_all().await;
    owner.until(first).await;
    let mut admin = Listening::start(&grid, &[]).await;
    let head = last_seq(&grid.pool).await;
    let live = publisher.for_all().await;
    owner.until(live).await;
    admin.until(live).await;
    assert!((first + 1..=head + 1).contains(&admin.printed[0]));

    // The service stops gracefully, and an event is committed while it is down; then it is killed while it works.
    assert!(server.terminate().await.success());
    publisher.for_anna(1).await;
    server = serve().await;
    let after_end = publisher.for_all().await;
    owner.until(after_end).await;
    admin.until(after_end).await;
    publisher.for_anna(1).await;
    server.kill9().await;
    publisher.for_anna(1).await;
    let _server = serve().await;
    let last = publisher.for_all().await;
    owner.until(last).await;
    admin.until(last).await;

    assert_eq!(owner.printed, numbers_of(&grid.pool, "anna").await);
    // The numbers that an admin sees have no holes.
    let all: Vec<i64> = (admin.printed[0]..=last).collect();
    assert_eq!(admin.printed, all);
    for listening in [owner, admin] {
        assert!(listening.ended().await.success());
    }
}
