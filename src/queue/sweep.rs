//! `SweepUnminted`: finds the stragglers and hands them to the same Minter.
//!
//! A straggler is pending, due, rolled out, and has no live job: its job was lost or used up, or it arrived while
//! auto-mint was off. Every process' clock ticks, but a tick is one job whose key is its moment, so it runs once.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apalis::prelude::{BoxDynError, Data, TaskId};
use apalis_cron::{Schedule, Tick};
use chrono::Utc;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::dead::{CauseOfDeath, give_up};
use super::guarded::{JobError, guarded};
use super::payload::Payload;
use super::prune::prune_finished_jobs;
use super::workers::QueueContext;
use crate::mint::{MintOutcome, MintPermission};
use crate::outbox::{self, Job, JobKind, Topic};
use crate::readings;
use crate::telemetry::names;

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

/// Puts the tick's job into the queue; the second process that tries finds it there.
pub async fn enqueue_sweep(
    tick: Tick,
    context: Data<Arc<QueueContext>>,
) -> Result<(), BoxDynError> {
    let mut transaction = context.pool.begin().await?;
    let job = Job::sweep(&tick.get_timestamp().to_string());
    outbox::enqueue(&mut transaction, &[job]).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    Ok(())
}

/// Runs one sweep.
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
    let swept = guarded(context.sweep_limit, sweep(&context)).await;
    metrics::gauge!(names::SWEEP_FINISHED_TIMESTAMP_SECONDS).set(Utc::now().timestamp() as f64);
    context.tally.finished_one();
    match swept {
        Ok(0) => Ok(()),
        Ok(submitted) => {
            tracing::info!(tick = job.tick, submitted, "sweep minted stragglers");
            Ok(())
        }
        // Not run again: the next tick finds what this one left.
        Err(error) => {
            tracing::warn!(tick = job.tick, %error, "sweep ended early");
            Ok(())
        }
    }
}

async fn sweep(context: &QueueContext) -> Result<u64, JobError> {
    crate::failpoint!("queue.sweep");
    let mut submitted = 0;
    let mut after = Uuid::nil();
    loop {
        let page = stragglers(context, after).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = *last;
        let outcomes = join_all(
            page.iter()
                .map(|reading| context.minter.mint(*reading, MintPermission::WhenDue)),
        )
        .await;
        submitted += outcomes
            .iter()
            .filter(|outcome| **outcome == MintOutcome::Submitted)
            .count() as u64;
        let refused = outcomes.iter().find_map(|outcome| match outcome {
            MintOutcome::NotNow(reason) => Some(reason.clone()),
            _ => None,
        });
        if let Some(reason) = refused {
            return Err(JobError::Later(reason));
        }
    }
    tidy(&context.pool, context.reading_max_age).await?;
    Ok(submitted)
}

/// Old jobs and old overlap guards go; neither is needed by anything that can still arrive.
async fn tidy(pool: &PgPool, reading_max_age: Duration) -> Result<(), JobError> {
    prune_finished_jobs(pool).await?;
    readings::prune_metered_intervals(pool, reading_max_age).await?;
    Ok(())
}

/// One page of stragglers in the order of their ids: memory does not grow with the backlog.
async fn stragglers(context: &QueueContext, after: Uuid) -> Result<Vec<Uuid>, JobError> {
    let page = sqlx::query_scalar(
        "SELECT reading.id
         FROM readings AS reading
         JOIN meters AS meter ON meter.id = reading.meter
         WHERE reading.state = 'pending'
           AND reading.next_attempt_at <= now()
           AND reading.id > $1
           -- The stored settings, not this process' copy: the sweep of a toggle may run before the news of it has come.
           AND meter.rollout_bucket < (
               SELECT CASE WHEN auto_mint_enabled THEN auto_mint_percentage ELSE 0 END
               FROM settings
           )
           AND NOT EXISTS (
               SELECT
               FROM apalis.jobs AS job
               WHERE job.job_type = 'MintReading'
                 AND job.idempotency_key = reading.id::TEXT
                 AND (job.status IN ('Pending', 'Queued', 'Running')
                      OR (job.status = 'Failed' AND job.attempts < job.max_attempts))
           )
         ORDER BY reading.id
         LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(context.sweep_batch_size))
    .fetch_all(&context.pool)
    .await?;
    Ok(page)
}
