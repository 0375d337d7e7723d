//! Ends a cluster of the tests together with the process that it was made for.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};

use super::EmbeddedError;
use super::binaries::Binaries;
use super::data_location::Home;

/// Stops the cluster at once and removes it, as soon as its input ends.
const SCRIPT: &str =
    r#"read -r _; "$1" stop --silent --mode immediate --pgdata "$2/data"; rm -rf "$2""#;

/// The open end of a pipe. However this process dies, the kernel closes it, and the watcher at the other end does its
/// work: a test run leaves nothing behind, not even after kill -9.
#[derive(Debug)]
pub(super) struct Watchdog {
    _input: Option<ChildStdin>,
}

impl Watchdog {
    pub(super) fn start(home: &Home, binaries: &Binaries) -> Result<Watchdog, EmbeddedError> {
        let shell = std::path::Path::new("/bin/sh");
        let mut child = home
            .account()
            .command(shell, std::path::Path::new("/"))
            .args(["-c", SCRIPT, "gridtokenx-watchdog"])
            .arg(binaries.pg_ctl())
            .arg(home.dir())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(EmbeddedError::file("cannot run", shell))?;
        Ok(Watchdog {
            _input: child.stdin.take(),
        })
    }
}
