//! Refuses one reading that cannot be paid as it is: it uses up an attempt, or fails.

use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::request::MintOutcome;
use crate::ledger::{self, AfterRefusal, Refusal};

/// When a refused reading is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// After its backoff, while attempts are left.
    Later,
    /// Once an admin retries it: trying again by itself does not help.
    ByAdmin,
}

/// `reason` is what the owner and admins read. A reading that changed since it was loaded gets no answer: the next packing
/// loads it again.
pub(super) async fn refuse(
    context: &MintContext,
    reading: &Candidate,
    reason: String,
    retry: Retry,
    answers: &mut Answers,
) {
    let refusal = Refusal {
        reading: reading.id,
        reason,
        permanent: retry == Retry::ByAdmin,
    };
    let refused = ledger::refuse_pending(
        &context.pool,
        &context.limits.schedule,
        &refusal,
        reading.revision,
    );
    match context.in_time(refused).await {
        Ok(AfterRefusal::Failed) => {
            tracing::warn!(reading_id = %refusal.reading, reason = refusal.reason, "reading failed");
            answers.give(refusal.reading, MintOutcome::Failed);
        }
        Ok(AfterRefusal::RetryAt(at)) => {
            tracing::warn!(
                reading_id = %refusal.reading,
                reason = refusal.reason,
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
