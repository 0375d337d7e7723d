//! Refuses one reading that cannot be paid as it is: it uses up an attempt, or fails.

use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::request::MintOutcome;
use crate::ledger::{self, AfterRefusal, Refusal, RefusalReason};

/// A reading that changed since it was loaded gets no answer: the next packing loads it again.
pub(super) async fn refuse(
    context: &MintContext,
    reading: &Candidate,
    reason: RefusalReason,
    answers: &mut Answers,
) {
    let refusal = Refusal {
        reading: reading.id,
        reason,
    };
    let refused = ledger::refuse_pending(
        &context.pool,
        &context.limits.schedule,
        &refusal,
        reading.revision,
    );
    match context.in_time(refused).await {
        Ok(AfterRefusal::Failed) => {
            tracing::warn!(reading_id = %refusal.reading, reason = %refusal.reason, "reading failed");
            answers.give(refusal.reading, MintOutcome::Failed);
        }
        Ok(AfterRefusal::RetryAt(at)) => {
            tracing::warn!(
                reading_id = %refusal.reading,
                reason = %refusal.reason,
                next_attempt_at = %at,
                "reading refused"
            );
            answers.give(refusal.reading, MintOutcome::RetryAt(at));
        }
        Ok(AfterRefusal::Superseded) => {}
        Err(reason) => answers.defer(
            &[refusal.reading],
            &DeferReason::RefusalNotStored(Box::new(reason)),
        ),
    }
}
