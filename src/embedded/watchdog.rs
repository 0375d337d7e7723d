//! Ends a temporary cluster together with the process that created it.

use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};

use super::binaries::Binaries;
use super::data_location::DataLocation;
use super::error::EmbeddedError;

/// Stops the cluster at once and removes it, as soon as its input ends.
const SCRIPT: &str =
    r#"read -r _; "$1" stop --silent --mode immediate --pgdata "$2/data"; rm -rf "$2""#;

/// The open end of a pipe. However this process ends, the kernel closes the pipe, and the script at the other end stops the
/// cluster: a test run leaves nothing behind, not even after kill -9.
#[derive(Debug)]
pub(super) struct Watchdog {
    _input: Option<ChildStdin>,
}

impl Watchdog {
    pub(super) fn start(
        location: &DataLocation,
        binaries: &Binaries,
    ) -> Result<Watchdog, EmbeddedError> {
        let shell = std::path::Path::new("/bin/sh");
        let mut child = location
            .user()
            .command(shell, std::path::Path::new("/"))
            .args(["-c", SCRIPT, "gridtokenx-watchdog"])
            .arg(binaries.pg_ctl())
            .arg(location.dir())
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
