//! Tasks that run on a period, as data: a name, a period, the limit of one run, and what to run.
//!
//! Invariant: a task runs until it is stopped, whatever a single run does. A run that exceeds its limit is cancelled and a run
//! that panics is caught; the next run starts at the next tick. Runs of one task never overlap, and missed ticks are not made
//! up. A loop of its own, outside [`PeriodicTask::run`], has to ensure all of this itself. The exception is a task of a leader:
//! its panic unwinds, so that the lock passes to a process that may not share the defect.
//!
//! The log has a line when runs begin to fail and one when they succeed again, never one for each run.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// What a task does on each tick.
pub trait Periodic: Send + 'static {
    /// One run. It may be cancelled at any await, so it keeps no half-done state across one.
    fn run(&mut self) -> impl Future<Output = Result<(), RunError>> + Send;

    /// Called after each run, also after one that failed, panicked or was cancelled.
    fn after_run(&mut self) {}
}

/// Why a run failed, for the log.
#[derive(Debug)]
pub enum RunError {
    Failed(Box<dyn Error + Send + Sync>),
    TimedOut(Duration),
    Panicked,
}

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Failed(error) => write!(formatter, "{error}"),
            RunError::TimedOut(limit) => write!(formatter, "it took longer than {limit:?}"),
            RunError::Panicked => formatter.write_str("it panicked"),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for RunError {
    fn from(error: E) -> RunError {
        RunError::Failed(Box::new(error))
    }
}

/// Name, period and limit of a task: what the status page lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub name: &'static str,
    pub every: Duration,
    /// Of one run. `None`: each of its steps has a limit of its own.
    pub limit: Option<Duration>,
}

impl Timing {
    pub const fn new(name: &'static str, every: Duration) -> Timing {
        Timing {
            name,
            every,
            limit: None,
        }
    }

    pub const fn with_limit(self, limit: Duration) -> Timing {
        Timing {
            limit: Some(limit),
            ..self
        }
    }
}

type Start = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// A task and its timing.
pub struct PeriodicTask {
    timing: Timing,
    start: Start,
}

/// What a panic of a run means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnPanic {
    /// The run has failed; the next one follows.
    Continue,
    /// The panic propagates to the caller.
    Unwind,
}

impl PeriodicTask {
    /// A task of every process: a run that panics has failed, and the next one follows.
    pub fn new(timing: Timing, task: impl Periodic) -> PeriodicTask {
        PeriodicTask::with(timing, task, OnPanic::Continue)
    }

    /// A task of the one process that holds a leader lock: a panic unwinds to the caller, which gives the lock up, so that another
    /// process can take over.
    pub fn of_leader(timing: Timing, task: impl Periodic) -> PeriodicTask {
        PeriodicTask::with(timing, task, OnPanic::Unwind)
    }

    fn with(timing: Timing, task: impl Periodic, on_panic: OnPanic) -> PeriodicTask {
        PeriodicTask {
            timing,
            start: Box::new(move |stop| run_until(timing, task, on_panic, stop).boxed()),
        }
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Runs the task at once and on each tick after that, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        (self.start)(stop).await;
    }
}

async fn run_until(
    timing: Timing,
    mut task: impl Periodic,
    on_panic: OnPanic,
    stop: CancellationToken,
) {
    let mut failing = false;
    let mut ticks = interval(timing.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let run = run_once(timing, &mut task, on_panic);
        let Some(outcome) = stop.run_until_cancelled(run).await else {
            return;
        };
        match &outcome {
            Err(error) if !failing => {
                tracing::warn!(task = timing.name, %error, "periodic task fails");
            }
            Ok(()) if failing => tracing::info!(task = timing.name, "periodic task recovered"),
            Ok(()) | Err(_) => {}
        }
        failing = outcome.is_err();
        task.after_run();
    }
}

async fn run_once(
    timing: Timing,
    task: &mut impl Periodic,
    on_panic: OnPanic,
) -> Result<(), RunError> {
    let run = AssertUnwindSafe(task.run()).catch_unwind();
    let ended = match timing.limit {
        Some(limit) => timeout(limit, run)
            .await
            .map_err(|_| RunError::TimedOut(limit))?,
        None => run.await,
    };
    match ended {
        Ok(outcome) => outcome,
        Err(panic) if on_panic == OnPanic::Unwind => resume_unwind(panic),
        Err(_) => Err(RunError::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const EVERY: Duration = Duration::from_millis(5);

    /// Succeeds, fails, hangs, panics, and again.
    struct Unreliable {
        runs: usize,
        ended: Arc<AtomicUsize>,
    }

    impl Periodic for Unreliable {
        async fn run(&mut self) -> Result<(), RunError> {
            self.runs += 1;
            match self.runs % 4 {
                1 => Ok(()),
                2 => Err(std::io::Error::other("no answer").into()),
                3 => std::future::pending().await,
                _ => panic!("a defect"),
            }
        }

        fn after_run(&mut self) {
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_task_keeps_running_whatever_a_run_does_until_it_is_stopped() {
        let ended = Arc::new(AtomicUsize::new(0));
        let task = Unreliable {
            runs: 0,
            ended: Arc::clone(&ended),
        };
        let timing = Timing::new("unreliable", EVERY).with_limit(EVERY);
        let task = PeriodicTask::new(timing, task);
        assert_eq!(task.timing(), timing);
        let stop = CancellationToken::new();
        let running = tokio::spawn(task.run(stop.clone()));
        let ten_runs = async {
            while ended.load(Ordering::SeqCst) < 10 {
                tokio::time::sleep(EVERY).await;
            }
        };
        timeout(Duration::from_secs(20), ten_runs)
            .await
            .expect("the task keeps running");
        stop.cancel();
        timeout(Duration::from_secs(20), running)
            .await
            .expect("it stops")
            .unwrap();
    }

    #[tokio::test]
    async fn the_panic_of_a_leaders_task_unwinds_so_that_its_lock_is_given_up() {
        let ended = Arc::new(AtomicUsize::new(0));
        let task = Unreliable {
            runs: 0,
            ended: Arc::clone(&ended),
        };
        let timing = Timing::new("unreliable", EVERY).with_limit(EVERY);
        let task = PeriodicTask::of_leader(timing, task);
        let running = tokio::spawn(task.run(CancellationToken::new()));
        let unwound = timeout(Duration::from_secs(20), running)
            .await
            .expect("it ends")
            .unwrap_err();
        assert!(unwound.is_panic());
        assert_eq!(ended.load(Ordering::SeqCst), 3, "the fourth run panicked");
    }
}
