//! Gathers the items of concurrent callers into batches: group commit for the hot paths.
//!
//! Invariant: every item that is accepted runs exactly once, in one batch, and its caller receives that batch's answer for it.
//! Kept by passing items over a bounded channel to one collector, and by running each batch in a separate task: a caller that
//! is dropped drops only its receiver of the answer, never the item. Running a batch in a caller's own future, which is
//! cancelled when that caller disconnects, would break it.
//!
//! A batch starts when it is full, or when its first item has waited for the linger and fewer than `concurrency` batches run. So
//! an idle system waits for the linger at most, and a busy one fills its batches while the earlier ones run.
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

use crate::telemetry::metric_value;
use crate::telemetry::names::{COALESCER_BATCH_ITEMS, COALESCER_WAIT_SECONDS};

/// The limits of a [`Coalescer`]. All of them are at least 1; with a linger of zero a batch holds only the items that are
/// queued already.
#[derive(Clone, Copy, Debug)]
pub struct CoalesceLimits {
    /// Items in one batch.
    pub max_items: usize,
    /// How long the first item of a batch waits for others.
    pub linger: Duration,
    /// Items that may wait for the collector; further ones are refused.
    pub queue: usize,
    /// Batches that run at the same time.
    pub concurrency: usize,
}

/// A call got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CoalesceError {
    /// The item was not accepted: the queue is full.
    #[error("too many calls are waiting")]
    Full,
    /// The item was not accepted: the coalescer is closed.
    #[error("no more calls are accepted: shutting down")]
    Closed,
    /// The item was accepted and its batch ended without an answer (it panicked): whether the item took effect is unknown.
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
    /// Starts the collector on `tracker`, where the batches run too: waiting for the tracker after [`close`](Coalescer::close)
    /// waits for all of them. `run` returns the answer to each item at the item's index. `name` labels the metrics.
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

    /// Queues the item and waits for its answer. Dropping this future drops the answer only: the item still runs.
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

    /// Accepts no more calls. Items that were accepted still run and are answered, without the linger.
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
            let Some((batch, slot)) = self.gather(first).await else {
                // The semaphore is never closed.
                return;
            };
            self.start_batch(batch, slot);
        }
    }

    /// The first call of the next batch; `None` once closed and drained.
    async fn first(&mut self) -> Option<Call<T, R>> {
        tokio::select! {
            call = self.calls.recv() => call,
            () = self.closing.cancelled() => {
                // Closed before it is drained: queued calls are still received, and no more are added.
                self.calls.close();
                self.calls.recv().await
            }
        }
    }

    /// Adds calls until the batch is full, or has lingered and may run.
    async fn gather(
        &mut self,
        first: Call<T, R>,
    ) -> Option<(Vec<Call<T, R>>, OwnedSemaphorePermit)> {
        let max_items = self.limits.max_items.max(1);
        let mut batch = Vec::with_capacity(max_items.min(1 + self.calls.len()));
        batch.push(first);
        let in_flight = Arc::clone(&self.in_flight);
        let lingers_until = Instant::now() + self.limits.linger;
        let closing = self.closing.clone();
        let may_start = async {
            tokio::select! {
                () = tokio::time::sleep_until(lingers_until) => {}
                () = closing.cancelled() => {}
            }
            Arc::clone(&in_flight).acquire_owned().await
        };
        tokio::pin!(may_start);
        while batch.len() < max_items {
            let room = max_items - batch.len();
            tokio::select! {
                // Calls that are queued already join: a batch starts half full only when the queue is empty.
                biased;
                taken = self.calls.recv_many(&mut batch, room) => {
                    if taken == 0 {
                        break;
                    }
                }
                slot = &mut may_start => return Some((batch, slot.ok()?)),
            }
        }
        let slot = in_flight.clone().acquire_owned().await.ok()?;
        Some((batch, slot))
    }

    fn start_batch(&self, batch: Vec<Call<T, R>>, slot: OwnedSemaphorePermit) {
        metrics::histogram!(COALESCER_BATCH_ITEMS, "coalescer" => self.name)
            .record(metric_value(batch.len()));
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
        // A separate task: when the batch panics, only its callers are affected; their answers are dropped.
        self.tracker.spawn(async move {
            let _slot = slot;
            let results = run(items).await;
            if results.len() != answers.len() {
                tracing::error!(
                    coalescer = name,
                    items = answers.len(),
                    answers = results.len(),
                    "a batch returned too few or too many answers; items without one get an error"
                );
            }
            for (answer, result) in answers.into_iter().zip(results) {
                // A dropped caller does not need its answer.
                let _ = answer.send(result);
            }
        });
    }
}

#[cfg(test)]
mod tests;
