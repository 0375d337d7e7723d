//! A service raises its limit of open files to what the configured connections need, or reports that it cannot.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::children::group_of_run;
use crate::support::localnet::TempDir;
use crate::support::server::PROGRAM;
use crate::support::{Grid, eventually};

/// The service under other limits of open files than the tests'.
fn serve(grid: &Grid, limits: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")])
        .args([PROGRAM, "serve"])
        .env_clear()
        .env("LOG_LEVEL", "warn")
        .envs(grid.environment())
        .env("WEBSOCKET_MAX_CONNECTIONS", "2000")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(group_of_run());
    command
}

/// Starts it, and returns how many files it may have open.
async fn open_files(grid: &Grid, limits: &str) -> u64 {
    let dir = TempDir::new("open-files");
    let ready = dir.path().join("address");
    let mut service = serve(grid, limits)
        .arg("--ready-file")
        .arg(&ready)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = eventually("the service serves", async || {
        assert!(service.try_wait().unwrap().is_none(), "it ended");
        std::fs::read_to_string(&ready).ok()
    })
    .await;
    let metrics = reqwest::get(format!("{}/metrics", url.trim()))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    let name = "gridtokenx_process_max_fds ";
    let limit = metrics.lines().find_map(|line| line.strip_prefix(name));
    limit.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_open_files_is_raised_to_what_the_connections_need() {
    let grid = Grid::without_service(&[]).await;
    let limit = open_files(&grid, "ulimit -Sn 256").await;
    assert!(limit >= 2_000, "{limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_limit_that_is_too_low_stops_the_start_with_a_sentence() {
    let grid = Grid::without_service(&[]).await;
    let output = serve(&grid, "ulimit -n 1000")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    for expected in ["WEBSOCKET_MAX_CONNECTIONS=2000", "may have 1000"] {
        assert!(stderr.contains(expected), "{stderr}");
    }
}
