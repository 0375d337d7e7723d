//! Runs a task.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::task_list::{RunCounter, TaskList};
use super::timing::Timing;

/// The work of a task.
pub trait Periodic: Send + 'static {
    /// One run. It may be cancelled at any await, so it keeps no half-done state across one.
    fn run(&mut self) -> impl Future<Output = Result<(), RunError>> + Send;

    /// Called after each run, including one that failed, panicked or was cancelled.
    fn after_run(&mut self) {}

    /// How long to pause after this run instead of until the end of the period. Zero: this run left work behind, so the next one
    /// follows at once, unless this one failed.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Returns when a signal makes the next run due before the pause is over. It is cancelled when the pause ends first, so a
    /// signal that it has received must not be lost with it. After a run that failed it is not called: the next run follows
    /// after the pause, and finds what the signal announced.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The error of a run, for the log.
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

type Start = Box<dyn FnOnce(RunCounter, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// A task and its timing.
pub struct PeriodicTask {
    timing: Timing,
    start: Start,
}

/// The reaction to a panic of a run.
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
            start: Box::new(move |counter, stop| {
                run_until(timing, task, on_panic, counter, stop).boxed()
            }),
        }
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Adds the task to the list of the process, and returns what runs it: at once and then on its period, until `stop`.
    pub fn run(self, list: &TaskList, stop: CancellationToken) -> BoxFuture<'static, ()> {
        (self.start)(list.add(self.timing), stop)
    }
}

async fn run_until(
    timing: Timing,
    mut task: impl Periodic,
    on_panic: OnPanic,
    counter: RunCounter,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        let started = Instant::now();
        let run = run_once(timing, &mut task, on_panic);
        let Some(outcome) = stop.run_until_cancelled(run).await else {
            return;
        };
        match &outcome {
            Err(error) if !failing => {
                tracing::warn!(task = timing.name, %error, "periodic task failed");
            }
            Ok(()) if failing => tracing::info!(task = timing.name, "periodic task recovered"),
            Ok(()) | Err(_) => {}
        }
        failing = outcome.is_err();
        task.after_run();
        counter.count();
        let next = match task.pause() {
            // Not even a timer: one waits for up to a millisecond.
            Some(Duration::ZERO) if !failing => continue,
            Some(pause) if !pause.is_zero() => Instant::now() + pause,
            Some(_) | None => started + timing.every,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(next) => {}
            () = task.woken(), if !failing => {}
        }
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

    use tokio::sync::Notify;
    use tokio_util::sync::DropGuard;

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
        let list = TaskList::default();
        let running = tokio::spawn(task.run(&list, stop.clone()));
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
        let running = tokio::spawn(task.run(&TaskList::default(), CancellationToken::new()));
        let unwound = timeout(Duration::from_secs(20), running)
            .await
            .expect("it ends")
            .unwrap_err();
        assert!(unwound.is_panic());
        assert_eq!(ended.load(Ordering::SeqCst), 3, "the fourth run panicked");
    }

    /// Runs once a minute, or when it is signalled. Leaves work behind in its first runs.
    struct Signalled {
        runs_left: usize,
        signal: Arc<Notify>,
        outcome: fn() -> Result<(), RunError>,
    }

    impl Periodic for Signalled {
        async fn run(&mut self) -> Result<(), RunError> {
            self.runs_left = self.runs_left.saturating_sub(1);
            (self.outcome)()
        }

        fn pause(&self) -> Option<Duration> {
            (self.runs_left > 0).then_some(Duration::ZERO)
        }

        async fn woken(&mut self) {
            self.signal.notified().await;
        }
    }

    const MINUTE: Timing = Timing::new("signalled", Duration::from_secs(60));

    /// Runs the task; returns its signal, the list and what stops it.
    fn start_signalled(
        runs_left: usize,
        outcome: fn() -> Result<(), RunError>,
    ) -> (Arc<Notify>, TaskList, DropGuard) {
        let signal = Arc::<Notify>::default();
        let task = Signalled {
            runs_left,
            signal: Arc::clone(&signal),
            outcome,
        };
        let (list, stop) = (TaskList::default(), CancellationToken::new());
        tokio::spawn(PeriodicTask::new(MINUTE, task).run(&list, stop.clone()));
        (signal, list, stop.drop_guard())
    }

    async fn until_runs(list: &TaskList, expected: u64) {
        let counted = async {
            while list.all()[0].runs() < expected {
                tokio::time::sleep(EVERY).await;
            }
        };
        timeout(Duration::from_secs(20), counted)
            .await
            .expect("it runs");
        // Time for one more, if there were a reason.
        tokio::time::sleep(10 * EVERY).await;
        assert_eq!(list.all()[0].runs(), expected);
    }

    #[tokio::test]
    async fn a_signal_starts_a_run_before_the_period_is_over() {
        let (signal, list, _running) = start_signalled(0, || Ok(()));
        until_runs(&list, 1).await;
        signal.notify_one();
        until_runs(&list, 2).await;
    }

    #[tokio::test]
    async fn a_run_that_leaves_work_behind_is_followed_at_once() {
        let (_signal, list, _running) = start_signalled(3, || Ok(()));
        until_runs(&list, 3).await;
    }

    #[tokio::test]
    async fn after_a_failed_run_neither_a_signal_nor_work_left_behind_shortens_the_pause() {
        let (signal, list, _running) =
            start_signalled(9, || Err(std::io::Error::other("no answer").into()));
        until_runs(&list, 1).await;
        signal.notify_one();
        until_runs(&list, 1).await;
    }
}
