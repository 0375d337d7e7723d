//! Handler of `TriggerBatch`: runs batches that admins requested, one at a time over all processes.
//!
//! A lock keeps two runs from handing in the same readings. If it fails they share the work all the same: a row counts once
//! and the ledger pays once.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::batch_slice::{SLICE, SliceEnd, enqueue_next_slice, run_slice};
use super::deferral::Deferral;
use super::handle::{Handle, JobEnd, Subject};
use super::handler_context::QueueContext;
use super::run_limited::{JobError, run_limited};
use crate::admin::batches;
use crate::db::{LeaderLock, run_exclusive};
use crate::outbox::{Job, TriggerBatch};

/// How long a job waits for the batch that runs; then it goes to the end of the queue.
const LOCK_WAIT: Duration = Duration::from_secs(15);

impl Handle for TriggerBatch {
    const WORKER: &'static str = "trigger";

    fn concurrency(_: &QueueContext) -> usize {
        1
    }

    async fn run(self, context: &QueueContext, job_id: &str) -> JobEnd {
        match run_limited(context.job_limit, run(context, self.batch_id)).await {
            Ok(outcome) => JobEnd::Done {
                subject: Subject::Batch(self.batch_id),
                outcome,
            },
            Err(error) => {
                tracing::warn!(job = TriggerBatch::NAME, job_id, batch_id = %self.batch_id, %error, "batch interrupted; it continues");
                JobEnd::Deferred {
                    reason: error.to_string(),
                    deferral: Deferral::BackOff,
                }
            }
        }
    }
}

/// Runs a slice of the batch. Returns the job's outcome, for the log.
async fn run(context: &QueueContext, id: Uuid) -> Result<&'static str, JobError> {
    let until = Instant::now() + SLICE;
    let ran = run_exclusive(
        &context.connect,
        LeaderLock::Trigger,
        LOCK_WAIT,
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
        Some(Some((slice, SliceEnd::Continues { idle }))) => (slice, Some(idle)),
        // Another batch runs.
        None => match batches::slice_of(&context.pool, id).await? {
            Some(slice) => (slice, None),
            None => return Ok("ended"),
        },
    };
    enqueue_next_slice(context, id, slice, idle, |next| {
        TriggerBatch::slice(id, next)
    })
    .await?;
    Ok("continues")
}
