//! Ends the programs that tests start together with the run, however it ends: a panic that aborts, a signal, kill -9.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Kills its own process group as soon as its input ends. The group is not the tests': a signal to theirs, such as Ctrl-C, must
/// not end the process that cleans up after them.
const SCRIPT: &str = "read -r _; kill -9 0";

/// A process group whose members end with the process that holds this value: the kernel closes the pipe then. No list of
/// process ids is kept, which other processes could have by that time.
pub struct ChildGroup {
    supervisor: Child,
}

static OF_RUN: LazyLock<ChildGroup> = LazyLock::new(ChildGroup::start);

/// The group of all programs that must not outlive this run.
pub fn group_of_run() -> i32 {
    OF_RUN.id()
}

impl ChildGroup {
    fn start() -> ChildGroup {
        let supervisor = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        ChildGroup { supervisor }
    }

    fn id(&self) -> i32 {
        i32::try_from(self.supervisor.id()).unwrap()
    }
}

#[test]
fn a_program_ends_with_the_run_that_started_it() {
    use std::os::unix::process::ExitStatusExt;

    let mut run = ChildGroup::start();
    let mut program = Command::new("sleep")
        .arg("60")
        .process_group(run.id())
        .spawn()
        .unwrap();
    assert!(program.try_wait().unwrap().is_none(), "it runs");
    // As the kernel does when the process ends.
    drop(run.supervisor.stdin.take());
    let ended = program.wait().unwrap();
    assert_eq!(ended.signal(), Some(nix::libc::SIGKILL), "{ended}");
    run.supervisor.wait().unwrap();
}
