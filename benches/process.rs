//! Reads the kernel's figures of a process.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to the hard limit, for this process and those that it starts; returns it.
pub fn raise_file_limit() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Resident memory of the process in bytes, without the kernel's buffers of its sockets.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Processor time that the process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = Stat::read(pid)?;
    Ok(stat.seconds(USER_TIME)? + stat.seconds(SYSTEM_TIME)?)
}

/// The same, and that of its children that have ended.
pub fn cpu_seconds_with_ended_children(pid: u32) -> Result<f64> {
    let stat = Stat::read(pid)?;
    Ok(stat.seconds(USER_TIME)?
        + stat.seconds(SYSTEM_TIME)?
        + stat.seconds(CHILDREN_USER_TIME)?
        + stat.seconds(CHILDREN_SYSTEM_TIME)?)
}

/// Positions behind the name, as in proc(5).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const CHILDREN_USER_TIME: usize = 13;
const CHILDREN_SYSTEM_TIME: usize = 14;
/// The unit of these figures in Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields of `/proc/PID/stat` behind the name.
struct Stat(Vec<String>);

impl Stat {
    fn read(pid: u32) -> Result<Stat> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may contain any character.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        Ok(Stat(fields.split_whitespace().map(str::to_owned).collect()))
    }

    fn seconds(&self, position: usize) -> Result<f64> {
        let ticks: f64 = self.0.get(position).context("too few fields")?.parse()?;
        Ok(ticks / TICKS_PER_SECOND)
    }
}

/// The first child of a process.
pub fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
