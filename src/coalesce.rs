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
mod tests;
