//! `SweepUnminted`: finds the stragglers and hands them to the same Minter.
//!
//! A straggler is pending, due, rolled out, and has no live job: its job was lost or used up, or it arrived while
//! auto-mint was off. Every process' clock ticks, but a tick is one job whose key is its moment, and one row of `batches`, so
//! it runs once; and a lock keeps sweeps from overlapping. A sweep that is not ended, because there is much to do or its
//! process died, is gone on with by whatever sweep comes next.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apalis::prelude::{BoxDynError, Data, TaskId};
use apalis_cron::{Schedule, Tick};
use chrono::{TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use super::batch_run::{SLICE, SliceEnd, go_on, run_slice};
use super::dead::{CauseOfDeath, give_up};
use super::guarded::{JobError, guarded};
use super::job_end::JobRun;
use super::mint_reading::postpone;
use super::payload::Payload;
use super::prune::prune_finished_jobs;
use super::workers::QueueContext;
use crate::admin::batches;
use crate::db::{LeaderLock, run_exclusive, within};
use crate::outbox::{self, Job, JobKind, Topic};
use crate::readings;
use crate::telemetry::{names, traces};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepUnminted {
    /// The moment that it was due, seconds since 1970; or what else asked for it.
    pub tick: String,
}

/// Ticks at whole multiples of the period since 1970: the same moments in every process, and none to catch up on after a
/// pause.
#[derive(Clone, Copy, Debug)]
pub struct EverySecs(pub u64);

impl<Tz> Schedule<Tz> for EverySecs {
    fn next_tick(&mut self, _: &Tz) -> Option<Tick<Tz>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(Tick::new((now / self.0 + 1) * self.0))
    }
}

/// Puts the tick's job into the queue; the second process that tries finds it there. While one waits, because all workers
/// are busy, no other is added: ticks that were missed are not made up. One that nobody takes for minutes does not count:
/// something is wrong with it, and it must not stop the clock.
pub async fn enqueue_sweep(
    tick: Tick,
    context: Data<Arc<QueueContext>>,
) -> Result<(), BoxDynError> {
    // A tick that waited for ever would be the last one.
    within(context.transaction_limit, enqueue(&context.pool, &tick)).await?;
    Ok(())
}

async fn enqueue(pool: &PgPool, tick: &Tick) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
    let one_waits: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT
             FROM apalis.jobs
             WHERE job_type = $1
               AND status = 'Pending'
               AND run_at > now() - INTERVAL '5 minutes'
         )",
    )
    .bind(JobKind::SweepUnminted.as_str())
    .fetch_one(&mut *transaction)
    .await?;
    if one_waits {
        return Ok(());
    }
    let job = Job::sweep(&tick.get_timestamp().to_string());
    outbox::enqueue(&mut transaction, &[job]).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    Ok(())
}

/// Runs one sweep, or a slice of it.
pub async fn sweep_unminted(
    job: Payload<SweepUnminted>,
    context: Data<Arc<QueueContext>>,
    task: TaskId,
) -> Result<(), BoxDynError> {
    let job = match job {
        Payload::Readable(job) => job,
        Payload::Unreadable(reason) => {
            let (kind, cause) = (JobKind::SweepUnminted, CauseOfDeath::UnreadablePayload);
            return Err(give_up(kind, &task.to_string(), cause, &reason));
        }
    };
    let id = task.to_string();
    let line = JobRun::begin(JobKind::SweepUnminted, &id);
    let swept = guarded(context.sweep_limit, sweep(&context, &job.tick)).await;
    context.tally.finished_one();
    match swept {
        Ok(Swept::Done { batch, outcome }) => {
            metrics::gauge!(names::SWEEP_FINISHED_TIMESTAMP_SECONDS)
                .set(Utc::now().timestamp() as f64);
            line.ended_batch(Some(&batch), outcome);
            Ok(())
        }
        Ok(Swept::NotNeeded) => {
            line.ended_batch(None, "not needed");
            Ok(())
        }
        Ok(Swept::Later) => {
            let soon = Utc::now() + AFTER_ANOTHER;
            postpone(&context, &id, Some(soon)).await?;
            let later = JobError::Later("another sweep runs".to_owned());
            line.put_off(&later);
            Err(later.into())
        }
        // Not run again: the next tick goes on with what this one left.
        Err(error) => {
            tracing::warn!(job = "SweepUnminted", job_id = id, tick = job.tick, %error, "sweep interrupted");
            Ok(())
        }
    }
}

/// A sweep that somebody asked for waits so long for the one that runs.
const PATIENCE: Duration = Duration::from_secs(10);
/// And then comes back after.
const AFTER_ANOTHER: TimeDelta = TimeDelta::seconds(1);

/// What is left of a sweep's limit when tidying ends: enough to hand the batch on.
const HAND_ON_RESERVE: Duration = Duration::from_secs(5);

/// Longer than all retries of a reading together take. Most traces are complete within seconds, and gone then.
const TRACE_AGE_MAX: TimeDelta = TimeDelta::days(2);

/// What became of a sweep's job.
enum Swept {
    /// A slice of it at least; a new job goes on with the rest.
    Done { batch: Uuid, outcome: &'static str },
    /// Another sweep runs, or this tick is swept.
    NotNeeded,
    /// Another sweep runs, which may have passed by what this one is for.
    Later,
}

async fn sweep(context: &QueueContext, tick: &str) -> Result<Swept, JobError> {
    crate::failpoint!("queue.sweep");
    let started = Instant::now();
    let until = started + SLICE;
    let tidy_until = started + context.sweep_limit.saturating_sub(HAND_ON_RESERVE);
    let due = tick.parse::<i64>().ok();
    let patience = due.map_or(PATIENCE, |_| Duration::ZERO);
    let swept = run_exclusive(
        &context.connect,
        LeaderLock::Sweep,
        patience,
        &context.stop,
        |held| async move {
            let Some(batch) = batches::begin_sweep(&context.pool, due).await? else {
                return Ok(Swept::NotNeeded);
            };
            let (id, slice) = (batch.id, batch.slice);
            let end = run_slice(context, batch, until, held.clone()).await;
            // After every slice, even one that failed: a batch over a large backlog goes on for hours. Not behind a lost lock
            // or at the drain: the next sweep does it.
            if !held.is_cancelled() {
                tidy(context, tidy_until).await;
            }
            let outcome = match end? {
                SliceEnd::Ended => "ended",
                SliceEnd::GoesOn { idle } => {
                    let job = |next| Job::sweep_on(tick, id, next);
                    go_on(context, id, slice, Some(idle), job).await?;
                    "goes on"
                }
            };
            Ok::<_, JobError>(Swept::Done { batch: id, outcome })
        },
    )
    .await?
    .transpose()?;
    Ok(match (swept, due) {
        (Some(swept), _) => swept,
        (None, Some(_)) => Swept::NotNeeded,
        (None, None) => Swept::Later,
    })
}

/// Old jobs, batches, overlap guards and traces go; none is needed by anything that can still arrive. Batches that lost their job
/// get another. Each step has an equal share of the time that is left, and one that fails keeps no other from its turn.
async fn tidy(context: &QueueContext, until: Instant) {
    let pool = &context.pool;
    let traces_before = readings::first_id_at(Utc::now() - TRACE_AGE_MAX);
    let steps: [(&str, BoxFuture<'_, sqlx::Result<u64>>); 5] = [
        ("stranded batches", batches::requeue_stranded(pool).boxed()),
        ("finished jobs", prune_finished_jobs(pool).boxed()),
        ("old batches", batches::prune(pool).boxed()),
        (
            "overlap guards",
            readings::prune_metered_intervals(pool, context.reading_max_age).boxed(),
        ),
        ("traces", traces::prune(pool, traces_before).boxed()),
    ];
    let mut left = steps.len() as u32;
    for (step, work) in steps {
        let share = until.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        if let Err(error) = within(share, work).await {
            tracing::warn!(step, %error, "tidying failed; the next slice of a sweep tries again");
        }
    }
}
