//! Many callers, one batch: group commit for the paths that are hot.
//!
//! Invariant: every item that was taken is run exactly once, in one batch, and its caller gets that batch's answer for it.
//! Kept by handing items over a bounded channel to one collector, and by running each batch in a task of its own: a
//! caller that goes away drops only its receiver of the answer, never the item. What would break it: running a batch
//! in a caller's own future, which is cancelled when that caller hangs up.
//!
//! A batch leaves when it is full, or when its first item has waited for the linger and a place in flight is free. So a
//! quiet system waits for the linger at most, and a busy one fills its batches while the earlier ones run.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use gridtokenx::coalesce::{Coalescer, CoalesceLimits};
//! # use tokio_util::task::TaskTracker;
//! # async fn example() -> Result<(), gridtokenx::coalesce::CoalesceError> {
//! let limits = CoalesceLimits { max_items: 500, linger: Duration::from_millis(2), queue: 4096, concurrency: 4 };
//! let doubler = Coalescer::start("doubler", limits, &TaskTracker::new(), |numbers: Vec<u64>| async move {
//!     numbers.into_iter().map(|number| 2 * number).collect()
//! });
//! assert_eq!(doubler.call(21).await?, 42);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::names::{COALESCER_BATCH_ITEMS, COALESCER_WAIT_SECONDS};

/// What bounds a [`Coalescer`]. All of them are at least 1; a linger of zero sends what is there at once.
#[derive(Clone, Copy, Debug)]
pub struct CoalesceLimits {
    /// Items in one batch.
    pub max_items: usize,
    /// How long the first item of a batch waits for company.
    pub linger: Duration,
    /// Items that may wait for the collector; one more is refused.
    pub queue: usize,
    /// Batches in flight.
    pub concurrency: usize,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CoalesceError {
    /// The item was not taken: as many wait already as may.
    #[error("too many calls are waiting")]
    Full,
    /// The item was not taken: the coalescer takes no more.
    #[error("no more calls are taken: shutting down")]
    Closed,
    /// The item was taken and its batch ended without an answer (it panicked): whether it took effect is unknown.
    #[error("the batch ended without an answer")]
    Failed,
}

struct Call<T, R> {
    item: T,
    since: Instant,
    answer: oneshot::Sender<R>,
}

/// Collects calls, runs them in batches, answers each caller. Clones share one collector.
pub struct Coalescer<T, R> {
    calls: mpsc::Sender<Call<T, R>>,
    closing: CancellationToken,
}

impl<T, R> Clone for Coalescer<T, R> {
    fn clone(&self) -> Coalescer<T, R> {
        Coalescer {
            calls: self.calls.clone(),
            closing: self.closing.clone(),
        }
    }
}

impl<T: Send + 'static, R: Send + 'static> Coalescer<T, R> {
    /// Starts the collector on `tracker`; so do the batches run there, and the tracker has waited for all of them after
    /// [`close`](Coalescer::close). `run` answers each item at its own index. `name` labels the metrics.
    pub fn start<F, Fut>(
        name: &'static str,
        limits: CoalesceLimits,
        tracker: &TaskTracker,
        run: F,
    ) -> Coalescer<T, R>
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<R>> + Send + 'static,
    {
        let (sender, calls) = mpsc::channel(limits.queue.max(1));
        let closing = CancellationToken::new();
        let collector = Collector {
            name,
            limits,
            calls,
            closing: closing.clone(),
            in_flight: Arc::new(Semaphore::new(limits.concurrency.max(1))),
            tracker: tracker.clone(),
            run: Arc::new(run),
        };
        tracker.spawn(collector.collect());
        Coalescer {
            calls: sender,
            closing,
        }
    }

    /// Hands the item over and waits for its answer. Dropping this future gives up the answer only: the item still runs.
    pub async fn call(&self, item: T) -> Result<R, CoalesceError> {
        let (answer, answered) = oneshot::channel();
        let call = Call {
            item,
            since: Instant::now(),
            answer,
        };
        self.calls.try_send(call).map_err(|refused| match refused {
            TrySendError::Full(_) => CoalesceError::Full,
            TrySendError::Closed(_) => CoalesceError::Closed,
        })?;
        answered.await.map_err(|_| CoalesceError::Failed)
    }

    /// Takes no more calls. What was taken is still run and answered, without waiting for company.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

struct Collector<T, R, F> {
    name: &'static str,
    limits: CoalesceLimits,
    calls: mpsc::Receiver<Call<T, R>>,
    closing: CancellationToken,
    in_flight: Arc<Semaphore>,
    tracker: TaskTracker,
    run: Arc<F>,
}

impl<T, R, F, Fut> Collector<T, R, F>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Vec<R>> + Send + 'static,
{
    async fn collect(mut self) {
        while let Some(first) = self.first().await {
            let Some((batch, place)) = self.gather(first).await else {
                // The semaphore is never closed.
                return;
            };
            self.depart(batch, place);
        }
    }

    /// The first call of the next batch; `None` once closed and drained.
    async fn first(&mut self) -> Option<Call<T, R>> {
        tokio::select! {
            call = self.calls.recv() => call,
            () = self.closing.cancelled() => {
                // Closed before it is drained: what was taken until now comes out, nothing gets in.
                self.calls.close();
                self.calls.recv().await
            }
        }
    }

    /// Gathers company until the batch is full, or has lingered and found a place in flight.
    async fn gather(
        &mut self,
        first: Call<T, R>,
    ) -> Option<(Vec<Call<T, R>>, OwnedSemaphorePermit)> {
        let max_items = self.limits.max_items.max(1);
        let mut batch = Vec::with_capacity(max_items.min(1 + self.calls.len()));
        batch.push(first);
        let in_flight = Arc::clone(&self.in_flight);
        let departs_at = Instant::now() + self.limits.linger;
        let closing = self.closing.clone();
        let departure = async {
            tokio::select! {
                () = tokio::time::sleep_until(departs_at) => {}
                () = closing.cancelled() => {}
            }
            Arc::clone(&in_flight).acquire_owned().await
        };
        tokio::pin!(departure);
        while batch.len() < max_items {
            let room = max_items - batch.len();
            tokio::select! {
                // Whoever waits already comes along: only an empty queue lets the batch go half full.
                biased;
                taken = self.calls.recv_many(&mut batch, room) => {
                    if taken == 0 {
                        break;
                    }
                }
                place = &mut departure => return Some((batch, place.ok()?)),
            }
        }
        let place = in_flight.clone().acquire_owned().await.ok()?;
        Some((batch, place))
    }

    fn depart(&self, batch: Vec<Call<T, R>>, place: OwnedSemaphorePermit) {
        metrics::histogram!(COALESCER_BATCH_ITEMS, "coalescer" => self.name)
            .record(batch.len() as f64);
        let wait_seconds = metrics::histogram!(COALESCER_WAIT_SECONDS, "coalescer" => self.name);
        let mut items = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        for call in batch {
            wait_seconds.record(call.since.elapsed());
            items.push(call.item);
            answers.push(call.answer);
        }
        let run = Arc::clone(&self.run);
        let name = self.name;
        // A task of its own: when the batch panics, its callers see their answers dropped, and nobody else notices.
        self.tracker.spawn(async move {
            let _place = place;
            let results = run(items).await;
            if results.len() != answers.len() {
                tracing::error!(
                    coalescer = name,
                    items = answers.len(),
                    answers = results.len(),
                    "a batch must answer each of its items: those left over get an error"
                );
            }
            for (answer, result) in answers.into_iter().zip(results) {
                // A caller that went away does not need it.
                let _ = answer.send(result);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use proptest::prelude::*;
    use tokio::sync::Notify;

    use super::*;

    /// Long enough to never end within a test: what leaves before left for another reason.
    const FOR_EVER: Duration = Duration::from_secs(3600);
    /// A test that waits longer than this has failed.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn limits(max_items: usize, linger: Duration) -> CoalesceLimits {
        CoalesceLimits {
            max_items,
            linger,
            queue: 10_000,
            concurrency: 1,
        }
    }

    /// Batches that wait at a gate; the test sees what is in flight and lets them go one by one.
    #[derive(Clone, Default)]
    struct Gate {
        started: Arc<Mutex<Vec<Vec<u32>>>>,
        changed: Arc<Notify>,
        open: Arc<Mutex<Option<Arc<Semaphore>>>>,
    }

    impl Gate {
        fn closed() -> Gate {
            Gate {
                open: Arc::new(Mutex::new(Some(Arc::new(Semaphore::new(0))))),
                ..Gate::default()
            }
        }

        fn let_through(&self, batches: usize) {
            if let Some(open) = self.open.lock().unwrap().as_ref() {
                open.add_permits(batches);
            }
        }

        async fn run(self, items: Vec<u32>) -> Vec<u32> {
            self.started.lock().unwrap().push(items.clone());
            self.changed.notify_one();
            let open = self.open.lock().unwrap().clone();
            if let Some(open) = open {
                open.acquire().await.unwrap().forget();
            }
            items
        }

        async fn started(&self, batches: usize) -> Vec<Vec<u32>> {
            let waited = tokio::time::timeout(PATIENCE, async {
                loop {
                    let changed = self.changed.notified();
                    let started = self.started.lock().unwrap().clone();
                    if started.len() >= batches {
                        return started;
                    }
                    changed.await;
                }
            });
            waited.await.expect("the batches start")
        }
    }

    fn start_gated(limits: CoalesceLimits, tracker: &TaskTracker, gate: &Gate) -> Coalescer<u32, u32> {
        let gate = gate.clone();
        Coalescer::start("test", limits, tracker, move |items| gate.clone().run(items))
    }

    #[tokio::test]
    async fn a_full_batch_leaves_without_waiting_for_the_linger() {
        let gate = Gate::default();
        let coalescer = start_gated(limits(3, FOR_EVER), &TaskTracker::new(), &gate);
        let answers = join_all((0..3).map(|item| coalescer.call(item)));
        let answers = tokio::time::timeout(PATIENCE, answers).await.unwrap();
        assert_eq!(answers, [Ok(0), Ok(1), Ok(2)]);
        assert_eq!(gate.started(1).await, [[0, 1, 2]]);
    }

    #[tokio::test]
    async fn a_lonely_call_leaves_after_the_linger() {
        let gate = Gate::default();
        let linger = Duration::from_millis(30);
        let coalescer = start_gated(limits(1000, linger), &TaskTracker::new(), &gate);
        let before = Instant::now();
        assert_eq!(coalescer.call(7).await, Ok(7));
        assert!(before.elapsed() >= linger);
    }

    #[tokio::test]
    async fn what_gathers_while_a_batch_runs_leaves_together() {
        let gate = Gate::closed();
        let coalescer = start_gated(limits(1000, Duration::ZERO), &TaskTracker::new(), &gate);
        let first = coalescer.call(0);
        tokio::pin!(first);
        assert!(first.as_mut().now_or_never().is_none());
        gate.started(1).await;
        let mut rest = Box::pin(join_all((1..=100).map(|item| coalescer.call(item))));
        assert!(rest.as_mut().now_or_never().is_none());
        gate.let_through(2);
        assert_eq!(first.await, Ok(0));
        assert!(rest.await.iter().all(Result::is_ok));
        assert_eq!(gate.started(2).await[1], (1..=100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn no_more_batches_are_in_flight_than_allowed() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let limits = CoalesceLimits {
            concurrency: 3,
            ..limits(1, Duration::ZERO)
        };
        let counted = (Arc::clone(&running), Arc::clone(&most));
        let coalescer = Coalescer::start("test", limits, &TaskTracker::new(), move |items: Vec<u32>| {
            let (running, most) = counted.clone();
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                items
            }
        });
        join_all((0..30).map(|item| coalescer.call(item))).await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let gate = Gate::closed();
        let limits = CoalesceLimits {
            queue: 2,
            ..limits(1, Duration::ZERO)
        };
        let coalescer = start_gated(limits, &TaskTracker::new(), &gate);
        let mut in_flight = Box::pin(coalescer.call(0));
        assert!(in_flight.as_mut().now_or_never().is_none());
        gate.started(1).await;
        // One more is with the collector, waiting for a place in flight; two fill the queue; then it is full.
        let mut waiting: Vec<_> = Vec::new();
        let refusal = loop {
            let mut call = Box::pin(coalescer.call(1));
            match call.as_mut().now_or_never() {
                None => waiting.push(call),
                Some(answer) => break answer,
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(refusal, Err(CoalesceError::Full));
        assert_eq!(waiting.len(), 3);
        gate.let_through(4);
        assert!(join_all(waiting).await.iter().all(Result::is_ok));
        assert_eq!(in_flight.await, Ok(0));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_cancels_nobody_and_its_item_still_runs() {
        let gate = Gate::closed();
        let coalescer = start_gated(limits(2, FOR_EVER), &TaskTracker::new(), &gate);
        let mut gone = Box::pin(coalescer.call(1));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        let mut stays = Box::pin(coalescer.call(2));
        assert!(stays.as_mut().now_or_never().is_none());
        assert_eq!(gate.started(1).await, [[1, 2]]);
        gate.let_through(1);
        assert_eq!(stays.await, Ok(2));
    }

    #[tokio::test]
    async fn a_batch_that_panics_answers_its_callers_with_an_error_and_the_next_one_runs() {
        let coalescer = Coalescer::start(
            "test",
            limits(2, FOR_EVER),
            &TaskTracker::new(),
            |items: Vec<u32>| async move {
                assert!(!items.contains(&13), "this batch is meant to panic");
                items
            },
        );
        let unlucky = join_all([coalescer.call(12), coalescer.call(13)]).await;
        assert_eq!(unlucky, [Err(CoalesceError::Failed), Err(CoalesceError::Failed)]);
        let lucky = join_all([coalescer.call(14), coalescer.call(15)]).await;
        assert_eq!(lucky, [Ok(14), Ok(15)]);
    }

    #[tokio::test]
    async fn a_batch_that_forgets_an_item_answers_it_with_an_error() {
        let coalescer = Coalescer::start(
            "test",
            limits(2, FOR_EVER),
            &TaskTracker::new(),
            |items: Vec<u32>| async move { items.into_iter().take(1).collect() },
        );
        let answers = join_all([coalescer.call(1), coalescer.call(2)]).await;
        assert_eq!(answers, [Ok(1), Err(CoalesceError::Failed)]);
    }

    #[tokio::test]
    async fn closing_runs_what_was_taken_and_takes_no_more() {
        let gate = Gate::default();
        let tracker = TaskTracker::new();
        let coalescer = start_gated(limits(4, FOR_EVER), &tracker, &gate);
        let mut taken = Box::pin(join_all((0..10).map(|item| coalescer.call(item))));
        assert!(taken.as_mut().now_or_never().is_none());
        coalescer.close();
        tracker.close();
        tokio::time::timeout(PATIENCE, tracker.wait()).await.unwrap();
        let answers = taken.await;
        assert_eq!(answers, (0..10).map(Ok).collect::<Vec<_>>());
        assert_eq!(coalescer.call(10).await, Err(CoalesceError::Closed));
    }

    #[tokio::test]
    async fn dropping_every_handle_ends_the_collector() {
        let tracker = TaskTracker::new();
        let coalescer = start_gated(limits(4, FOR_EVER), &tracker, &Gate::default());
        drop(coalescer);
        tracker.close();
        tokio::time::timeout(PATIENCE, tracker.wait()).await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the limits and whoever hangs up: each item runs once, in order, in batches within the limit, and each
        /// caller gets its own answer.
        #[test]
        fn each_item_runs_once_and_each_caller_gets_its_own_answer(
            max_items in 1_usize..20,
            linger_us in 0_u64..500,
            concurrency in 1_usize..4,
            stays in prop::collection::vec(any::<bool>(), 1..100),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let gate = Gate::default();
                let tracker = TaskTracker::new();
                let limits = CoalesceLimits {
                    concurrency,
                    ..limits(max_items, Duration::from_micros(linger_us))
                };
                let coalescer = start_gated(limits, &tracker, &gate);
                let mut calls = Vec::new();
                for (item, stay) in (0_u32..).zip(&stays) {
                    let mut call = Box::pin(coalescer.call(item));
                    prop_assert!(call.as_mut().now_or_never().is_none());
                    if *stay {
                        calls.push((item, call));
                    }
                    if item % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                for (item, call) in calls {
                    prop_assert_eq!(call.await, Ok(item));
                }
                coalescer.close();
                tracker.close();
                tracker.wait().await;
                let batches = gate.started.lock().unwrap().clone();
                prop_assert!(batches.iter().all(|batch| batch.len() <= max_items));
                let mut ran = batches.concat();
                ran.sort_unstable();
                prop_assert_eq!(ran, (0..stays.len() as u32).collect::<Vec<_>>());
                Ok(())
            })?;
        }
    }
}
