//! The private PostgreSQL cluster and the local chain: what they keep, and what a killed owner leaves behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gridtokenx::embedded::{EmbeddedError, Lifetime, Localnet, PostgresCluster, PostgresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use solana_client::nonblocking::rpc_client::RpcClient;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use crate::support::localnet::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

/// Durable except for fsync, whose absence no test can detect.
fn kept(dir: &TempDir) -> PostgresOptions {
    PostgresOptions {
        fsync: false,
        ..PostgresOptions::durable(dir.path().join("postgres"))
    }
}

async fn store(url: &str, number: i64) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS kept (number BIGINT)")
        .execute(&mut connection)
        .await?;
    sqlx::query("INSERT INTO kept VALUES ($1)")
        .bind(number)
        .execute(&mut connection)
        .await?;
    connection.close().await
}

async fn stored(url: &str) -> sqlx::Result<Vec<i64>> {
    let mut connection = PgConnection::connect(url).await?;
    let numbers = sqlx::query_scalar("SELECT number FROM kept ORDER BY number")
        .fetch_all(&mut connection)
        .await?;
    connection.close().await?;
    Ok(numbers)
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with('Z'))
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Another process that starts a cluster and then waits to be killed: this test program itself, running only
/// [`owner_of_a_cluster`].
struct Owner {
    process: Child,
    server: u32,
}

const OWNER_DIR: &str = "TEST_OWNER_DATA_DIR";
const OWNER_LIFETIME: &str = "TEST_OWNER_LIFETIME";

impl Owner {
    fn start(data_dir: &Path, lifetime: &str) -> Owner {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "recovery::embedded::owner_of_a_cluster",
                "--nocapture",
            ])
            .env(OWNER_DIR, data_dir)
            .env(OWNER_LIFETIME, lifetime)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let server = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("server ")?.parse().ok())
            .expect("the owner did not start its cluster");
        Owner { process, server }
    }

    /// As by `kill -9`.
    fn kill(mut self) -> u32 {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.server
    }
}

#[tokio::test]
async fn owner_of_a_cluster() {
    let Some(data_dir) = std::env::var_os(OWNER_DIR).map(PathBuf::from) else {
        return;
    };
    let lifetime = match std::env::var(OWNER_LIFETIME).unwrap().as_str() {
        "ends" => Lifetime::ThisProcess,
        _ => Lifetime::UntilStopped,
    };
    let cluster = PostgresCluster::start(PostgresOptions {
        fsync: false,
        lifetime,
        ..PostgresOptions::durable(data_dir)
    })
    .await
    .unwrap();
    println!("server {}", cluster.pid());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_cluster_survives_kill_9_of_its_owner_and_is_adopted() {
    let dir = TempDir::new("pg-adopt");
    let options = kept(&dir);
    let first = PostgresCluster::start(options.clone()).await.unwrap();
    store(&first.database_url(), 1).await.unwrap();
    first.stop().await;

    let left_running = Owner::start(&options.data_dir, "stays").kill();
    assert!(is_running(left_running), "the server died with its owner");

    let adopted = PostgresCluster::start(options.clone()).await.unwrap();
    assert_eq!(adopted.pid(), left_running);
    assert_eq!(stored(&adopted.database_url()).await.unwrap(), [1]);

    adopted.stop().await;
    assert!(
        !is_running(left_running),
        "an adopted server was not stopped"
    );
    assert!(
        !PostgresCluster::stop_leftover(&options.data_dir)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_leftover_can_be_stopped_without_a_start() {
    let dir = TempDir::new("pg-leftover");
    let data_dir = dir.path().join("postgres");
    assert!(!PostgresCluster::stop_leftover(&data_dir).await.unwrap());
    let left_running = Owner::start(&data_dir, "stays").kill();
    assert!(PostgresCluster::stop_leftover(&data_dir).await.unwrap());
    assert!(!is_running(left_running));
}

#[tokio::test]
async fn a_cluster_of_the_tests_ends_and_goes_with_its_process() {
    let dir = TempDir::new("pg-ends");
    // The directory above belongs to us, so that the server's user can empty the cluster's but not remove it.
    let data_dir = dir.path().join("postgres");
    let server = Owner::start(&data_dir, "ends").kill();
    eventually("the server ends", || !is_running(server)).await;
    eventually("the data are gone", || !data_dir.join("data").exists()).await;
}

#[tokio::test]
async fn a_killed_server_is_started_again_on_the_same_port_and_state() {
    let dir = TempDir::new("pg-killed");
    let mut cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    let (url, pid) = (cluster.database_url(), cluster.pid());
    assert!(!cluster.ensure_alive().await.unwrap());
    let pool = PgPool::connect(&url).await.unwrap();
    store(&url, 7).await.unwrap();

    for _ in 0..3 {
        signal(cluster.pid(), Signal::SIGKILL);
        cluster.exited().await;
        assert!(cluster.ensure_alive().await.unwrap());
        assert_eq!(cluster.database_url(), url);
        assert_eq!(stored(&url).await.unwrap(), [7]);
    }
    assert_ne!(cluster.pid(), pid);
    // A pool that was open all the time reconnects.
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(count, 1);
    pool.close().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_stale_pid_file_that_names_an_unrelated_process_does_not_prevent_a_start() {
    let dir = TempDir::new("pg-stale");
    let cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    cluster.stop().await;
    let data = dir.path().join("postgres/data");
    let owner = fs::metadata(&data).unwrap();
    // The hard case: an unrelated process of the same user that runs the server.
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .uid(owner.uid())
        .gid(owner.gid())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid_file = format!(
        "{}\n{}\n1700000000\n5432\n\n127.0.0.1\n",
        stranger.id(),
        data.display()
    );
    fs::write(data.join("postmaster.pid"), pid_file).unwrap();

    let cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "the stranger was ended"
    );
    cluster.stop().await;
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_is_replaced() {
    let dir = TempDir::new("pg-hangs");
    let options = kept(&dir);
    let hanging = Owner::start(&options.data_dir, "stays").kill();
    signal(hanging, Signal::SIGSTOP);

    let cluster = PostgresCluster::start(options).await.unwrap();
    assert_ne!(cluster.pid(), hanging);
    assert!(!is_running(hanging));
    cluster.stop().await;
}

#[tokio::test]
async fn an_unfinished_cluster_is_created_again() {
    let dir = TempDir::new("pg-half");
    let home = dir.path().join("postgres");
    let half = home.join("data.new-0badcafe");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    fs::write(home.join("password"), "of the start that was killed").unwrap();

    let cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    store(&cluster.database_url(), 1).await.unwrap();
    assert!(!half.exists());
    cluster.stop().await;
}

#[tokio::test]
async fn the_server_does_not_run_as_root_or_with_extra_groups_and_its_password_is_not_visible() {
    let dir = TempDir::new("pg-secret");
    let cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(!field("Uid:").contains(&"0".to_owned()));
    if nix::unistd::geteuid().is_root() {
        assert_eq!(field("Groups:"), [""; 0]);
    }

    let home = dir.path().join("postgres");
    let password_file = home.join("password");
    assert_eq!(
        fs::metadata(&password_file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let password = fs::read_to_string(password_file).unwrap();
    assert_eq!(password.len(), 64, "32 random bytes in hexadecimal");
    assert!(cluster.database_url().contains(&password));
    let command_line = fs::read_to_string(format!("/proc/{}/cmdline", cluster.pid())).unwrap();
    assert!(!command_line.contains(&password));
    assert!(
        !fs::read_to_string(home.join("postgres.log"))
            .unwrap()
            .contains(&password)
    );
    assert!(!format!("{cluster:?}").contains(&password));

    // Without the password every connection is refused.
    let stranger = cluster.database_url().replace(&password, "guess");
    assert!(PgConnection::connect(&stranger).await.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_start_reports_why_in_one_sentence() {
    let dir = TempDir::new("pg-refuses");
    let cluster = PostgresCluster::start(kept(&dir)).await.unwrap();
    let port = cluster.port();
    let other = TempDir::new("pg-refuses-port");
    let refused = PostgresCluster::start(PostgresOptions {
        port: Some(port),
        ..kept(&other)
    })
    .await
    .unwrap_err();
    assert!(
        matches!(refused, EmbeddedError::AddressInUse { .. }),
        "{refused}"
    );
    cluster.stop().await;

    fs::write(
        dir.path().join("postgres/data/postgresql.conf"),
        "no_such_setting = on\n",
    )
    .unwrap();
    let refused = PostgresCluster::start(kept(&dir))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with("PostgreSQL did not start: "),
        "{refused}"
    );
    assert!(refused.contains(": FATAL: "), "{refused}");
    assert_eq!(refused.lines().count(), 1);
}

#[tokio::test]
async fn databases_are_made_once_and_copied_with_their_content() {
    let cluster = PostgresCluster::ephemeral().await.unwrap();
    let template = cluster.create_database("template \"one\"").await.unwrap();
    store(&template, 5).await.unwrap();
    let copy = cluster
        .copy_database("copy", "template \"one\"")
        .await
        .unwrap();
    assert_eq!(stored(&copy).await.unwrap(), [5]);
    store(&copy, 6).await.unwrap();
    assert_eq!(cluster.create_database("copy").await.unwrap(), copy);
    assert_eq!(stored(&copy).await.unwrap(), [5, 6]);
    assert_eq!(stored(&template).await.unwrap(), [5]);
    cluster.stop().await;
}

#[tokio::test]
async fn the_local_chain_is_adopted_and_started_again_on_the_same_address_and_state() {
    let dir = TempDir::new("chain");
    let any = "127.0.0.1:0".parse().unwrap();
    let first = Localnet::start(any, dir.path()).await.unwrap();
    let (url, pid) = (first.rpc_url().clone(), first.pid());
    let genesis = RpcClient::new(url.to_string())
        .get_genesis_hash()
        .await
        .unwrap();
    drop(first);

    let mut adopted = Localnet::start(any, dir.path()).await.unwrap();
    assert_eq!((adopted.pid(), adopted.rpc_url()), (pid, &url));
    assert!(!adopted.ensure_alive().await.unwrap());

    signal(pid, Signal::SIGKILL);
    adopted.exited().await;
    assert!(adopted.ensure_alive().await.unwrap());
    assert_eq!(adopted.rpc_url(), &url);
    let again = RpcClient::new(url.to_string())
        .get_genesis_hash()
        .await
        .unwrap();
    assert_eq!(again, genesis);

    let stranger = TempDir::new("chain-port");
    let taken = url.socket_addrs(|| None).unwrap()[0];
    let refused = Localnet::start(taken, stranger.path()).await.unwrap_err();
    assert!(
        matches!(refused, EmbeddedError::AddressInUse { .. }),
        "{refused}"
    );

    let pid = adopted.pid();
    drop(adopted);
    assert!(Localnet::stop_leftover(dir.path()).await);
    assert!(!is_running(pid));
}
