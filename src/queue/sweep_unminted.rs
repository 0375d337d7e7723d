//! Handler of `SweepUnminted`: finds stragglers and hands them to the same minter.
//!
//! A straggler is a reading that is pending, due and rolled out, and has no live job: its job was lost or used up, or it
//! arrived while auto-mint was off. A tick is one job and one row of `batches`, so it is swept once; a lock keeps sweeps from
//! overlapping. A sweep that did not end, because there was much to do or its process died, is continued by the next sweep
//! that runs. While the circuit breaker is open nothing is claimed: a tick passes, and a sweep that was requested waits.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::batch_slice::{SLICE, SliceEnd, enqueue_next_slice, run_slice};
use super::deferral::Deferral;
use super::handle::{Handle, JobEnd, Subject};
use super::handler_context::{CIRCUIT_WAIT, QueueContext};
use super::run_limited::{JobError, run_limited};
use super::tidy::tidy;
use crate::admin::batches;
use crate::db::{self, LeaderLock, run_exclusive};
use crate::outbox::{self, Job, SweepUnminted, Topic};
use crate::telemetry::{metric_value, names};

/// How long a sweep that was requested between ticks waits for the one that runs; then it is deferred.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The part of a sweep's limit that remains when tidying ends: enough to enqueue the next slice.
const NEXT_SLICE_RESERVE: Duration = Duration::from_secs(5);

/// How long a tick's sweep waits for the circuit breaker: long enough for one that closes as the process starts.
const TICK_CIRCUIT_WAIT: Duration = Duration::from_secs(1);
/// After this a requested sweep is tried again that found the circuit breaker open and waited for it.
const AFTER_PAUSE: TimeDelta = TimeDelta::seconds(1);

impl Handle for SweepUnminted {
    const WORKER: &'static str = "sweep";

    fn concurrency(_: &QueueContext) -> usize {
        1
    }

    async fn run(self, context: &QueueContext, job_id: &str) -> JobEnd {
        match run_limited(context.sweep_limit, sweep(context, &self)).await {
            Ok(Swept::Slice { batch, outcome }) => {
                note_finished();
                JobEnd::Done {
                    subject: Subject::Batch(batch),
                    outcome,
                }
            }
            Ok(Swept::NotNeeded) => JobEnd::Done {
                subject: Subject::NoBatch,
                outcome: "not needed",
            },
            Ok(Swept::Paused) => {
                note_finished();
                JobEnd::Done {
                    subject: Subject::NoBatch,
                    outcome: "minting is paused",
                }
            }
            Ok(Swept::AnotherRuns) => JobEnd::Deferred {
                reason: "another sweep runs".to_owned(),
                deferral: Deferral::AnotherSweep,
            },
            // Not run again: the next tick continues what this one left.
            Err(error) => {
                tracing::warn!(job = SweepUnminted::NAME, job_id, tick = self.tick, %error, "sweep interrupted");
                JobEnd::Superseded
            }
        }
    }
}

async fn enqueue_later(context: &QueueContext, job: &SweepUnminted) -> Result<(), JobError> {
    let mut transaction = db::begin(&context.pool).await?;
    outbox::enqueue(&mut transaction, &[job.later(Utc::now() + AFTER_PAUSE)]).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    Ok(())
}

fn note_finished() {
    metrics::gauge!(names::SWEEP_FINISHED_TIMESTAMP_SECONDS)
        .set(metric_value(Utc::now().timestamp()));
}

/// The result of a sweep's job.
enum Swept {
    /// A slice of the sweep; a new job continues with the rest.
    Slice { batch: Uuid, outcome: &'static str },
    /// Another sweep runs, or this tick is swept already.
    NotNeeded,
    /// Another sweep runs, and may have passed what this one was requested for.
    AnotherRuns,
    /// The circuit breaker is open: nothing was claimed. A requested sweep has another job.
    Paused,
}

async fn sweep(context: &QueueContext, job: &SweepUnminted) -> Result<Swept, JobError> {
    crate::failpoint!("queue.sweep");
    let started = Instant::now();
    let until = started + SLICE;
    let tidy_until = started + context.sweep_limit.saturating_sub(NEXT_SLICE_RESERVE);
    let due = job.due_secs();
    let lock_wait = due.map_or(LOCK_WAIT, |_| Duration::ZERO);
    let circuit_wait = due.map_or(CIRCUIT_WAIT, |_| TICK_CIRCUIT_WAIT);
    let is_paused = context.wait_for_circuit(circuit_wait).await.is_err();
    let swept = run_exclusive(
        &context.connect,
        LeaderLock::Sweep,
        lock_wait,
        &context.stop,
        |held| async move {
            if is_paused {
                // A tick is followed by the next one; a request is not.
                if due.is_none() {
                    enqueue_later(context, job).await?;
                }
                if !held.is_cancelled() {
                    tidy(context, tidy_until).await;
                }
                return Ok(Swept::Paused);
            }
            let Some(batch) = batches::begin_sweep(&context.pool, due).await? else {
                return Ok(Swept::NotNeeded);
            };
            let (id, slice) = (batch.id, batch.slice);
            let end = run_slice(context, batch, until, held.clone()).await;
            // After every slice, even one that failed: a batch over a large backlog takes hours. Not without the lock or during
            // a drain: the next sweep tidies.
            if !held.is_cancelled() {
                tidy(context, tidy_until).await;
            }
            let outcome = match end? {
                SliceEnd::Ended => "ended",
                SliceEnd::Continues { idle } => {
                    let next = |slice| job.next_slice(id, slice);
                    enqueue_next_slice(context, id, slice, Some(idle), next).await?;
                    "continues"
                }
            };
            Ok::<_, JobError>(Swept::Slice { batch: id, outcome })
        },
    )
    .await?
    .transpose()?;
    Ok(match (swept, due) {
        (Some(swept), _) => swept,
        (None, Some(_)) => Swept::NotNeeded,
        (None, None) => Swept::AnotherRuns,
    })
}
