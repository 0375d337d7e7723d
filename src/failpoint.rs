//! Named points between two steps where a test can kill, stall or fail the process (feature `failpoints`).
//!
//! Without the feature, [`failpoint!`](crate::failpoint!) expands to nothing. With it, the variable `FAILPOINTS` assigns actions
//! to points, in the grammar of the crate `fail`: `ledger.recorded=return(kill)`, `mint.sent=2*off->1*return(kill)`.
//!
//! | action | effect |
//! |---|---|
//! | `return(kill)` | the process kills itself at once, as by `kill -9` |
//! | `return(stall)` | the task waits here until the file named by `FAILPOINTS_RELEASE` exists |
//! | `return(error)` | the two-argument form returns its error |

/// Marks a step: `failpoint!("room.step")`, or `failpoint!("room.step", error)` where an error can be injected too.
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        #[cfg(feature = "failpoints")]
        let _ = $crate::failpoint::reach($name).await;
    };
    ($name:expr, $error:expr) => {
        #[cfg(feature = "failpoints")]
        if $crate::failpoint::reach($name).await {
            return Err($error);
        }
    };
}

/// Reads `FAILPOINTS` and keeps the scenario alive until the returned guard is dropped.
#[cfg(feature = "failpoints")]
pub fn scenario() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Runs the action that the scenario assigns to this point; returns true when an error is to be injected.
#[cfg(feature = "failpoints")]
pub async fn reach(name: &str) -> bool {
    match action(name).as_deref() {
        Some("kill") => {
            tracing::warn!(point = name, "fail point: killing this process");
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            false
        }
        Some("stall") => {
            tracing::warn!(point = name, "fail point: stalling here");
            let release = std::env::var_os("FAILPOINTS_RELEASE").map(std::path::PathBuf::from);
            while !release.as_ref().is_some_and(|path| path.exists()) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            false
        }
        Some("error") => true,
        _ => false,
    }
}

#[cfg(feature = "failpoints")]
fn action(name: &str) -> Option<String> {
    fail::fail_point!(name, |argument| argument);
    None
}
