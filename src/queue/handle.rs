//! Runs the handler of a job, and ends the job by what the handler returns.

use std::sync::Arc;

use apalis::prelude::{Attempt, BoxDynError, Data, TaskId};
use uuid::Uuid;

use super::dead_letter::{DeadLetterReason, dead_letter};
use super::deferral::{Deferral, defer};
use super::handler_context::QueueContext;
use super::job_log::JobLog;
use super::payload::Payload;
use super::run_limited::JobError;
use crate::outbox::Job;

/// The handler of a kind of job.
pub(super) trait Handle: Job {
    /// Names its worker within this process.
    const WORKER: &'static str;

    /// Jobs of this kind that run at once in this process.
    fn concurrency(context: &QueueContext) -> usize;

    /// Runs the job once. `job_id` is for the log.
    fn run(self, context: &QueueContext, job_id: &str) -> impl Future<Output = JobEnd> + Send;
}

/// The end of one run of a job.
#[derive(Debug)]
pub(super) enum JobEnd {
    /// The job is done. `outcome` is one word or two for the log.
    Done {
        subject: Subject,
        outcome: &'static str,
    },
    /// Nothing is wrong with the job, but it cannot be done now.
    Deferred { reason: String, deferral: Deferral },
    /// The run failed and the handler has logged it. The job runs again, see [`Deferral::BackOff`].
    Failed(JobError),
    /// The job can never be done.
    Dead {
        reason: DeadLetterReason,
        detail: String,
    },
    /// The run failed, the handler has logged it, and another job continues what this one began.
    Superseded,
}

/// The subject of a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    Reading(Uuid),
    Batch(Uuid),
    /// A sweep that was not needed has no batch.
    NoBatch,
}

/// The function that apalis calls for each job.
pub(super) async fn handle<J: Handle>(
    job: Payload<J>,
    context: Data<Arc<QueueContext>>,
    task: TaskId,
    attempt: Attempt,
) -> Result<(), BoxDynError> {
    let id = task.to_string();
    let log = JobLog::begin(J::NAME, &id);
    let end = match job {
        Payload::Readable(job) => job.run(&context, &id).await,
        Payload::Unreadable(detail) => JobEnd::Dead {
            reason: DeadLetterReason::UnreadablePayload,
            detail,
        },
    };
    context.finished_jobs.count_one();
    let run = u32::try_from(attempt.current()).unwrap_or(u32::MAX);
    match end {
        JobEnd::Done { subject, outcome } => {
            match &subject {
                Subject::Reading(reading) => log.ended_reading(reading, outcome),
                Subject::Batch(batch) => log.ended_batch(Some(batch), outcome),
                Subject::NoBatch => log.ended_batch(None, outcome),
            }
            Ok(())
        }
        JobEnd::Deferred { reason, deferral } => {
            defer(&context, &id, run, deferral).await?;
            log.deferred(&reason);
            Err(JobError::Deferred(reason).into())
        }
        JobEnd::Failed(error) => {
            defer(&context, &id, run, Deferral::BackOff).await?;
            Err(error.into())
        }
        JobEnd::Dead { reason, detail } => Err(dead_letter(J::NAME, &id, reason, &detail)),
        JobEnd::Superseded => Ok(()),
    }
}
