//! Handler of `MintReading`: hands one reading to the minter.

use std::time::SystemTime;

use uuid::Uuid;

use super::dead_letter::DeadLetterReason;
use super::deferral::Deferral;
use super::handle::{Handle, JobEnd, Subject};
use super::handler_context::{CIRCUIT_WAIT, QueueContext};
use super::run_limited::{JobError, run_limited};
use crate::admin;
use crate::mint::{MintOutcome, MintPermission};
use crate::outbox::{Job, MintReading};
use crate::telemetry::traces::{self, Step, StepKind, attributes};

impl Handle for MintReading {
    const WORKER: &'static str = "mint";

    fn concurrency(context: &QueueContext) -> usize {
        context.concurrency
    }

    async fn run(self, context: &QueueContext, job_id: &str) -> JobEnd {
        let begun = SystemTime::now();
        let end = run(self.reading_id, context, job_id).await;
        trace(self.reading_id, begun, job_id, &end);
        end
    }
}

/// The reason of a deferral is in the log and in the reading's `last_error`.
fn trace(reading: Uuid, begun: SystemTime, job_id: &str, end: &JobEnd) {
    if !traces::is_on() {
        return;
    }
    let outcome = match end {
        JobEnd::Done { outcome, .. } => outcome,
        JobEnd::Deferred { .. } | JobEnd::Failed(_) | JobEnd::Dead { .. } | JobEnd::Superseded => {
            "deferred"
        }
    };
    Step::ended_now(StepKind::JobRun, reading, begun)
        .with(attributes::JOB_ID, job_id.to_owned())
        .with(attributes::OUTCOME, outcome)
        .export();
}

/// The job is done when the reading is submitted, paid, failed, or held back by an admin's setting.
async fn run(reading: Uuid, context: &QueueContext, job_id: &str) -> JobEnd {
    if let Err(cause) = context.wait_for_circuit(CIRCUIT_WAIT).await {
        return JobEnd::Deferred {
            reason: cause.to_string(),
            deferral: Deferral::CircuitOpen,
        };
    }
    let outcome = match run_limited(context.job_limit, mint(context, reading)).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(job = MintReading::NAME, job_id, reading_id = %reading, %error, "job failed");
            return JobEnd::Failed(error);
        }
    };
    let done = |outcome| JobEnd::Done {
        subject: Subject::Reading(reading),
        outcome,
    };
    match outcome {
        MintOutcome::Submitted => done("submitted"),
        MintOutcome::AlreadyHandled(_) => done("already submitted"),
        MintOutcome::Failed => done("failed"),
        // The sweep after auto-mint is switched on, or a trigger, mints the held readings.
        MintOutcome::OnHold => done("held"),
        MintOutcome::NotDue(at) | MintOutcome::RetryAt(at) => JobEnd::Deferred {
            reason: "its backoff".to_owned(),
            deferral: Deferral::Until(at),
        },
        MintOutcome::Deferred(reason) | MintOutcome::InsufficientFunds(reason) => {
            JobEnd::Deferred {
                reason: reason.to_string(),
                deferral: Deferral::BackOff,
            }
        }
        MintOutcome::Unknown => JobEnd::Dead {
            reason: DeadLetterReason::UnknownReading,
            detail: format!("there is no reading {reading}"),
        },
    }
}

async fn mint(context: &QueueContext, reading: Uuid) -> Result<MintOutcome, JobError> {
    crate::failpoint!("queue.picked");
    let outcome = context.minter.mint(reading, MintPermission::WhenDue).await;
    if matches!(outcome, MintOutcome::OnHold) {
        admin::announce_hold(&context.pool).await?;
    }
    Ok(outcome)
}
