//! Where a worker's jobs come from: apalis' storage, read patiently, woken by commits.

use std::time::Duration;

use apalis_core::backend::ext::BackendExt;
use apalis_core::backend::ext::lifecycle::BeforeStart;
use apalis_core::backend::ext::poll_strategy::PollWith;
use apalis_core::backend::ext::with_codec::WithCodec;
use apalis_postgres::{Config, Error, PostgresStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgPool;

use super::dead::bury_unreadable_rows;
use super::payload::{PatientJson, Payload};
use super::wake_up::WakeUp;
use crate::outbox::{JobKind, Wake};

/// Due retries and jobs that were handed back raise no notification: the poll finds them.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// A worker is taken for dead after this many missed heartbeats: 180 s, three times a handler's hard limit. Dead
/// *processes* are noticed within seconds by their lock.
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
const MISSED_HEARTBEATS: usize = 12;
/// How long a worker that ended with an error (the database went away) waits before it starts again.
pub(super) const RESTART_DELAY: Duration = Duration::from_millis(500);
/// Looking for unreadable rows: one that takes longer is left to the next start.
const BURY_LIMIT: Duration = Duration::from_secs(10);

type Storage<T> = WithCodec<PostgresStorage<Payload<T>>, PatientJson>;
pub(super) type Source<T> = BeforeStart<PollWith<Storage<T>, WakeUp>, Error>;

/// The queue of one kind of job. Before the worker's start, so also after it ended because of one, rows that it could not
/// read are taken out of the way; a start that follows an error waits for a moment first.
pub(super) fn source<T>(
    pool: &PgPool,
    wake: &Wake,
    kind: JobKind,
    batch: usize,
    restart: usize,
) -> Source<T>
where
    T: Serialize + DeserializeOwned + Send + 'static,
{
    let config = Config::default()
        .queue(kind.as_str())
        // Never above the concurrency: acknowledgements wait while the fetch buffer is not empty.
        .batch_size(batch)
        .heartbeat_interval(HEARTBEAT_EVERY)
        .missed_heartbeats(MISSED_HEARTBEATS)
        // Also what makes a finished job acknowledged at all.
        .persist_results(true);
    let storage = PostgresStorage::<Payload<T>>::new(pool)
        .with_config(config)
        .with_codec(PatientJson);
    let pool = pool.clone();
    PollWith::new(storage, WakeUp::new(wake.jobs(), POLL_EVERY)).before_start(move |_| {
        let pool = pool.clone();
        async move {
            if restart > 0 {
                tokio::time::sleep(RESTART_DELAY).await;
            }
            match tokio::time::timeout(BURY_LIMIT, bury_unreadable_rows(&pool, kind)).await {
                Ok(Ok(_)) => {}
                // The worker's own first statement tells the same.
                Ok(Err(error)) => tracing::debug!(%error, "could not look for unreadable jobs"),
                Err(_) => tracing::warn!("looking for unreadable jobs took too long"),
            }
            Ok(())
        }
    })
}
