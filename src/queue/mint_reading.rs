//! `MintReading`: one reading, handed to the Minter.

use std::sync::Arc;

use apalis::prelude::{Data, TaskId};
use chrono::{DateTime, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::guarded::{JobError, guarded};
use super::workers::QueueContext;
use crate::mint::{MintOutcome, MintPermission};

/// The whole payload: one that cannot be decoded would block its worker, so there is nothing in it that may change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
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
    job: MintReading,
    context: Data<Arc<QueueContext>>,
    task: TaskId,
) -> Result<(), JobError> {
    let outcome = guarded(context.job_limit, mint(&context, job.reading_id)).await;
    let (reason, run_at) = match outcome {
        Ok(MintOutcome::NotDue(at) | MintOutcome::RetryAt(at)) => {
            ("its backoff".to_owned(), Some(at))
        }
        Ok(MintOutcome::NotNow(reason)) => (reason, None),
        Ok(
            MintOutcome::Submitted
            | MintOutcome::Already(_)
            | MintOutcome::Failed
            | MintOutcome::Unknown,
        ) => return Ok(()),
        Err(error) => {
            tracing::error!(reading_id = %job.reading_id, %error, "job failed");
            (error.to_string(), None)
        }
    };
    postpone(&context.pool, &task.to_string(), run_at).await?;
    Err(JobError::Later(reason))
}

async fn mint(context: &QueueContext, reading: Uuid) -> Result<MintOutcome, JobError> {
    crate::failpoint!("queue.picked");
    if context.is_held(reading).await? {
        // The toggle's sweep, or a trigger, comes back to it.
        return Ok(MintOutcome::Unknown);
    }
    Ok(context.minter.mint(reading, MintPermission::WhenDue).await)
}

/// apalis fetches a failed job again at its `run_at`: that is the durable timer. `None`: after a pause that grows with the
/// job's runs.
pub(super) async fn postpone(
    pool: &PgPool,
    job: &str,
    run_at: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    let spread: f64 = rand::rng().random_range(0.5..1.0);
    sqlx::query(
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
    .execute(pool)
    .await?;
    Ok(())
}
