//! A long-lived program in its own process group: started by this process, or adopted from a predecessor of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// How often an adopted process is checked: it is not our child, so the kernel does not notify us of its end.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// A process cannot refuse SIGKILL; the kernel only takes some time.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running program that outlives this process unless it is stopped. Dropping it leaves it running.
#[derive(Debug)]
pub struct ChildProcess {
    pid: Pid,
    /// Clock ticks from boot to the start of the process: process ids are reused, this pair is not.
    started: Option<u64>,
    /// `None` when adopted.
    child: Option<Child>,
}

impl ChildProcess {
    /// Starts the program in a new process group, so that Ctrl-C does not reach it. Its input is empty.
    pub fn spawn(command: &mut Command) -> io::Result<ChildProcess> {
        let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        Ok(ChildProcess {
            pid,
            started: Stat::read(pid).map(|stat| stat.started),
            child: Some(child),
        })
    }

    /// The running program of this name that was started with exactly this argument.
    pub fn find(program: &str, argument: &Path) -> Option<ChildProcess> {
        let processes = fs::read_dir("/proc").ok()?;
        processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .find_map(|pid| {
                let stat = Stat::read(pid).filter(|stat| !stat.ended)?;
                was_started_as(pid, program, argument).then_some(ChildProcess {
                    pid,
                    started: Some(stat.started),
                    child: None,
                })
            })
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    pub fn has_exited(&mut self) -> bool {
        match &mut self.child {
            // Also reaps the child, so that no zombie remains.
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => Stat::read(self.pid)
                .is_none_or(|stat| stat.ended || self.started != Some(stat.started)),
        }
    }

    /// Waits until the program has ended.
    pub async fn exited(&mut self) {
        while !self.has_exited() {
            sleep(CHECK_INTERVAL).await;
        }
    }

    /// Waits until the program has ended, no longer than `limit`. Returns whether it has.
    pub async fn exited_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while !self.has_exited() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(CHECK_INTERVAL).await;
        }
        true
    }

    /// Ends the program: sends one signal after the other, each with its limit, and SIGKILL when the program has ignored all
    /// of them. Returns once it has ended.
    pub async fn stop(&mut self, signals: &[(Signal, Duration)]) {
        for (signal, limit) in signals {
            self.signal(*signal);
            if self.exited_within(*limit).await {
                return;
            }
            tracing::debug!(pid = self.pid(), %signal, ?limit, "program did not end in time");
        }
        self.signal(Signal::SIGKILL);
        self.exited_within(KILL_LIMIT).await;
    }

    fn signal(&mut self, signal: Signal) {
        if !self.has_exited() {
            // It may end between the check and the signal, which then has no effect.
            let _ = kill(self.pid, signal);
        }
    }
}

/// Whether there is no such process, or only its zombie.
pub(super) fn has_ended(pid: i32) -> bool {
    Stat::read(Pid::from_raw(pid)).is_none_or(|stat| stat.ended)
}

/// The part of `/proc/<pid>/stat` that distinguishes processes (proc(5)).
struct Stat {
    ended: bool,
    started: u64,
}

impl Stat {
    fn read(pid: Pid) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        // Fields 3, 20 and 22 of the line.
        let state = fields.next()?;
        let threads = fields.nth(16)?;
        let started = fields.nth(1)?.parse().ok()?;
        // The first thread may have ended while others still hold the files and ports.
        let ended = matches!(state, "Z" | "X") && matches!(threads, "0" | "1");
        Some(Stat { ended, started })
    }
}

fn was_started_as(pid: Pid, program: &str, argument: &Path) -> bool {
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut arguments = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let called = arguments.next().map(PathBuf::from);
    if !arguments.any(|given| given == argument.as_os_str()) {
        return false;
    }
    // The file may have been replaced by a newer build since; the link then ends in " (deleted)".
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok();
    [executable, called].into_iter().flatten().any(|path| {
        path.file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|name| name.trim_end_matches(" (deleted)") == program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A `sleep` whose arguments no other test and no other process uses.
    fn sleeper(mark: &str) -> (ChildProcess, PathBuf) {
        let argument = format!("1000.{}{mark}", std::process::id());
        let child = ChildProcess::spawn(Command::new("sleep").arg(&argument)).unwrap();
        (child, PathBuf::from(argument))
    }

    #[tokio::test]
    async fn a_program_that_was_left_running_is_adopted_and_stopped() {
        let (own, argument) = sleeper("1");
        let pid = own.pid();
        drop(own);

        let mut adopted = loop {
            // Between fork and exec it still looks like ourselves.
            if let Some(found) = ChildProcess::find("sleep", &argument) {
                break found;
            }
            sleep(CHECK_INTERVAL).await;
        };
        assert_eq!(adopted.pid(), pid);
        assert!(!adopted.has_exited());
        adopted.stop(&[(Signal::SIGTERM, LIMIT)]).await;
        assert!(adopted.has_exited());
        assert!(ChildProcess::find("sleep", &argument).is_none());
    }

    #[tokio::test]
    async fn only_the_named_program_with_the_very_argument_is_adopted() {
        let (mut own, argument) = sleeper("2");
        while ChildProcess::find("sleep", &argument).is_none() {
            sleep(CHECK_INTERVAL).await;
        }
        assert!(ChildProcess::find("postgres", &argument).is_none());
        let longer = format!("{}0", argument.display());
        assert!(ChildProcess::find("sleep", Path::new(&longer)).is_none());
        own.stop(&[]).await;
        assert!(own.has_exited());
    }

    #[tokio::test]
    async fn a_program_that_ignores_the_first_signal_is_killed() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        let mut child = ChildProcess::spawn(command.stdout(Stdio::piped())).unwrap();
        let mut output = child.child.as_mut().unwrap().stdout.take().unwrap();
        io::Read::read_exact(&mut output, &mut [0; 5]).unwrap();

        child
            .stop(&[(Signal::SIGTERM, Duration::from_millis(200))])
            .await;
        assert!(child.has_exited());
    }

    #[tokio::test]
    async fn a_process_id_that_was_given_to_another_process_counts_as_exited() {
        let (mut own, _) = sleeper("3");
        let mut predecessor = ChildProcess {
            pid: own.pid,
            started: own.started.map(|ticks| ticks - 1),
            child: None,
        };
        assert!(predecessor.has_exited());
        predecessor.stop(&[]).await;
        assert!(!own.has_exited(), "an unrelated process was signalled");
        own.stop(&[]).await;
    }
}
