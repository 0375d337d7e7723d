//! Gives a worker its jobs: from apalis' storage, decoded leniently, polled on every commit that enqueues jobs.

use std::time::Duration;

use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::lifecycle::BeforeStart;
use apalis_core::backend::ext::poll_strategy::PollWith;
use apalis_core::backend::ext::with_codec::WithCodec;
use apalis_postgres::{Config, Error, PostgresStorage};
use sqlx::PgPool;

use super::dead_letter::reject_unreadable_rows;
use super::payload::{LenientJson, Payload};
use super::wake_up::WakeUp;
use crate::outbox::{Job, Wake};
use crate::periodic::{RunCounter, Timing};

/// Due retries and jobs that were handed back send no notification: the poll finds them.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// For the list of periodic tasks: apalis runs it, once for each worker.
pub(super) const POLL_TIMING: Timing = Timing::new("queue poll", POLL_EVERY);
/// apalis considers a worker dead after this many missed heartbeats: 180 s, three times a handler's hard limit. Dead
/// *processes* are detected within seconds by their lock.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
const MISSED_HEARTBEATS: usize = 12;
/// How long a worker that ended with an error (the database became unavailable) waits before it starts again.
pub(super) const RESTART_DELAY: Duration = Duration::from_millis(500);
/// Limit of the search for unreadable rows; one that takes longer is left to the next start.
const REJECT_LIMIT: Duration = Duration::from_secs(10);

type Storage<T> = WithCodec<PostgresStorage<Payload<T>>, LenientJson>;
/// A worker's source of jobs, see [`source`].
pub(super) type Source<T> = BeforeStart<PollWith<Storage<T>, WakeUp>, Error>;

/// The queue of one kind of job. Before the worker starts, rows that it could not read are rejected; a start that follows an
/// error waits for [`RESTART_DELAY`] first. `batch`: jobs that one fetch claims at most.
pub(super) fn source<J: Job>(
    pool: &PgPool,
    wake: &Wake,
    polls: &RunCounter,
    batch: usize,
    restart: usize,
) -> Source<J> {
    let config = Config::default()
        .queue(J::NAME)
        // Never above the concurrency: acknowledgements wait while the fetch buffer is not empty.
        .batch_size(batch)
        .heartbeat_interval(HEARTBEAT_EVERY)
        .missed_heartbeats(MISSED_HEARTBEATS)
        // Without it apalis does not acknowledge finished jobs at all.
        .persist_results(true);
    let storage = PostgresStorage::<Payload<J>>::new(pool)
        .with_config(config)
        .with_codec(LenientJson);
    let pool = pool.clone();
    let wake_up = WakeUp::new(wake.jobs(), POLL_EVERY, polls.clone());
    PollWith::new(storage, wake_up).before_start(move |_| {
        let pool = pool.clone();
        async move {
            if restart > 0 {
                tokio::time::sleep(RESTART_DELAY).await;
            }
            let rejecting = reject_unreadable_rows(&pool, J::NAME);
            match tokio::time::timeout(REJECT_LIMIT, rejecting).await {
                Ok(Ok(_)) => {}
                // The worker's own first statement reports the same error.
                Ok(Err(error)) => tracing::debug!(%error, "could not search for unreadable jobs"),
                Err(_) => tracing::warn!("the search for unreadable jobs took too long"),
            }
            Ok(())
        }
    })
}
