//! `TriggerBatch`: an admin's batch, one at a time over all processes.
//!
//! The lock keeps two from handing in the same readings; if it fails they share the work all the same, since a row counts
//! once and the ledger pays once.

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::{BoxDynError, Data, TaskId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::batch_run::{SLICE, SliceEnd, go_on, run_slice};
use super::dead::{CauseOfDeath, give_up};
use super::guarded::{JobError, guarded};
use super::job_end::JobRun;
use super::mint_reading::postpone;
use super::payload::Payload;
use super::workers::QueueContext;
use crate::admin::batches;
use crate::db::{LeaderLock, run_exclusive};
use crate::outbox::{Job, JobKind};

/// The whole payload; the batch's row knows the rest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TriggerBatch {
    pub batch_id: Uuid,
}

/// How long a job waits for the batch before it; then it goes behind in the queue.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

/// Runs a slice of the batch.
pub async fn trigger_batch(
    job: Payload<TriggerBatch>,
    context: Data<Arc<QueueContext>>,
    task: TaskId,
) -> Result<(), BoxDynError> {
    let job = match job {
        Payload::Readable(job) => job,
        Payload::Unreadable(reason) => {
            let (kind, cause) = (JobKind::TriggerBatch, CauseOfDeath::UnreadablePayload);
            return Err(give_up(kind, &task.to_string(), cause, &reason));
        }
    };
    let id = task.to_string();
    let line = JobRun::begin(JobKind::TriggerBatch, &id);
    let ran = guarded(context.job_limit, run(&context, job.batch_id)).await;
    context.tally.finished_one();
    match ran {
        Ok(outcome) => {
            line.ended_batch(Some(&job.batch_id), outcome);
            Ok(())
        }
        Err(error) => {
            tracing::warn!(job = "TriggerBatch", job_id = id, batch_id = %job.batch_id, %error, "the batch was interrupted; it goes on");
            postpone(&context, &id, None).await?;
            Err(JobError::Later(error.to_string()).into())
        }
    }
}

/// What the job ended with, in a word.
async fn run(context: &QueueContext, id: Uuid) -> Result<&'static str, JobError> {
    let until = Instant::now() + SLICE;
    let ran = run_exclusive(
        &context.connect,
        LeaderLock::Trigger,
        LOCK_PATIENCE,
        &context.stop,
        |held| async move {
            crate::failpoint!("queue.trigger");
            let Some(batch) = batches::begin_trigger(&context.pool, id).await? else {
                return Ok(None);
            };
            let slice = batch.slice;
            let end = run_slice(context, batch, until, held).await?;
            Ok::<_, JobError>(Some((slice, end)))
        },
    )
    .await?;
    let (slice, idle) = match ran.transpose()? {
        Some(None | Some((_, SliceEnd::Ended))) => return Ok("ended"),
        Some(Some((slice, SliceEnd::GoesOn { idle }))) => (slice, Some(idle)),
        // Another one is run.
        None => match batches::slice_of(&context.pool, id).await? {
            Some(slice) => (slice, None),
            None => return Ok("ended"),
        },
    };
    go_on(context, id, slice, idle, |next| {
        Job::trigger_batch(id, next)
    })
    .await?;
    Ok("goes on")
}
