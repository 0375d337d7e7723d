//! `MintReading`: one reading, handed to the Minter.

use std::sync::Arc;
use std::time::SystemTime;

use apalis::prelude::{BoxDynError, Data, TaskId};
use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dead::{CauseOfDeath, give_up};
use super::guarded::{JobError, guarded};
use super::job_end::JobRun;
use super::payload::Payload;
use super::workers::QueueContext;
use crate::admin;
use crate::db::within;
use crate::mint::{MintOutcome, MintPermission};
use crate::outbox::JobKind;
use crate::telemetry::traces::{self, Step, StepKind, attributes};

/// The whole payload: a version that cannot read another's would lose its jobs, so there is nothing in it that may change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MintReading {
    pub reading_id: Uuid,
}

/// When a reading that could not be minted for reasons outside it is looked at again: after this, doubled by each run of the
/// job up to [`LATER_MAX_SECS`], so that a backlog does not hammer database and chain through an outage.
const LATER_SECS: f64 = 2.0;
/// How long an outage that is over may still hold up a reading, seconds; jitter takes up to a half off.
const LATER_MAX_SECS: f64 = 60.0;

/// Runs the job. `Ok` ends it: the reading is submitted, paid, failed, or held back by an admin's setting.
pub async fn mint_reading(
    job: Payload<MintReading>,
    context: Data<Arc<QueueContext>>,
    task: TaskId,
) -> Result<(), BoxDynError> {
    let id = task.to_string();
    let reading = match job {
        Payload::Readable(job) => job.reading_id,
        Payload::Unreadable(reason) => {
            context.tally.finished_one();
            let (kind, cause) = (JobKind::MintReading, CauseOfDeath::UnreadablePayload);
            return Err(give_up(kind, &id, cause, &reason));
        }
    };
    let line = JobRun::begin(JobKind::MintReading, &id);
    let begun = SystemTime::now();
    let ended = run(reading, &context, &id).await;
    context.tally.finished_one();
    trace(reading, begun, &id, &ended);
    match ended {
        Ok(outcome) => {
            line.ended_reading(&reading, outcome);
            Ok(())
        }
        Err(error) => {
            if let Some(JobError::Later(reason)) = error.downcast_ref() {
                line.put_off(reason);
            }
            Err(error)
        }
    }
}

/// Why a run was put off is in the log and in the reading's `last_error`.
fn trace(reading: Uuid, begun: SystemTime, id: &str, ended: &Result<&'static str, BoxDynError>) {
    if traces::is_on() {
        Step::ended_now(StepKind::JobRun, reading, begun)
            .with(attributes::JOB_ID, id.to_owned())
            .with(attributes::OUTCOME, *ended.as_ref().unwrap_or(&"put off"))
            .export();
    }
}

/// `Ok`: what the job ended with, in a word.
async fn run(reading: Uuid, context: &QueueContext, id: &str) -> Result<&'static str, BoxDynError> {
    let dead = |cause, reason: &str| Err(give_up(JobKind::MintReading, id, cause, reason));
    if let Err(cause) = context.until_minting_is_worth_trying().await {
        // Not more often and not later because it waited before: the circuit breaker does the backing off.
        let spread = rand::rng().random_range(500..1_500);
        let soon = Utc::now() + TimeDelta::milliseconds(spread);
        postpone(context, id, Some(soon)).await?;
        return Err(JobError::Later(cause.to_string()).into());
    }
    let (reason, run_at) = match guarded(context.job_limit, mint(context, reading)).await {
        Ok(outcome) => match outcome {
            MintOutcome::NotDue(at) | MintOutcome::RetryAt(at) => {
                ("its backoff".to_owned(), Some(at))
            }
            MintOutcome::NotNow(reason) | MintOutcome::AwaitsFunds(reason) => (reason, None),
            MintOutcome::Submitted => return Ok("submitted"),
            MintOutcome::Already(_) => return Ok("already submitted"),
            MintOutcome::Failed => return Ok("failed"),
            // The toggle's sweep, or a trigger, comes back to what is held.
            MintOutcome::Held => return Ok("held"),
            MintOutcome::Unknown => {
                let reason = format!("there is no reading {reading}");
                return dead(CauseOfDeath::UnknownReading, &reason);
            }
        },
        Err(error) => {
            tracing::error!(job = "MintReading", job_id = id, reading_id = %reading, %error, "job failed");
            postpone(context, id, None).await?;
            return Err(error.into());
        }
    };
    postpone(context, id, run_at).await?;
    Err(JobError::Later(reason).into())
}

async fn mint(context: &QueueContext, reading: Uuid) -> Result<MintOutcome, JobError> {
    crate::failpoint!("queue.picked");
    let outcome = context.minter.mint(reading, MintPermission::WhenDue).await;
    if outcome == MintOutcome::Held {
        admin::announce_hold(&context.pool).await?;
    }
    Ok(outcome)
}

/// apalis fetches a failed job again at its `run_at`: that is the durable timer. `None`: after a pause that grows with the
/// job's runs.
pub(super) async fn postpone(
    context: &QueueContext,
    job: &str,
    run_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    let spread: f64 = rand::rng().random_range(0.5..1.0);
    let postponed = sqlx::query(
        "UPDATE apalis.jobs
         SET run_at = COALESCE(
             $2,
             now() + LEAST($3 * POWER(2, LEAST(attempts, 10)), $4) * $5 * INTERVAL '1 second'
         )
         WHERE id = $1",
    )
    .bind(job)
    .bind(run_at)
    .bind(LATER_SECS)
    .bind(LATER_MAX_SECS)
    .bind(spread)
    .execute(&context.pool);
    within(context.transaction_limit, postponed).await?;
    Ok(())
}
