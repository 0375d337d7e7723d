//! Hands readings of a batch to the minter.

use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::handler_context::QueueContext;
use super::run_limited::JobError;
use crate::admin::batches::{self, ReadingOutcome};
use crate::mint::{DeferReason, MintOutcome, MintPermission};

/// How long the minter may take for one reading; then the reading is handed in again.
const HAND_IN_LIMIT: Duration = Duration::from_secs(20);

/// The result of handing in a page.
pub(super) struct Handed {
    /// A reading was minted, was paid already, or failed permanently.
    pub progressed: bool,
    /// Nothing is wrong with the readings, but they cannot be minted now.
    pub outage: Option<DeferReason>,
}

/// Hands in a page of readings, and records the outcomes that the readings' own states do not have.
pub(super) async fn hand_in(
    context: &QueueContext,
    batch: Uuid,
    permission: MintPermission,
    page: Vec<Uuid>,
) -> Result<Handed, JobError> {
    crate::failpoint!("queue.batch_claimed");
    let outcomes = join_all(
        page.iter()
            .map(|reading| mint(context, *reading, permission)),
    )
    .await;
    let mut handed = Handed {
        progressed: false,
        outage: None,
    };
    let mut known = Vec::new();
    for (reading, outcome) in page.into_iter().zip(outcomes) {
        let outcome = match outcome {
            // The reading's own state has the rest.
            MintOutcome::Submitted | MintOutcome::AlreadyHandled(_) | MintOutcome::Failed => {
                handed.progressed = true;
                continue;
            }
            MintOutcome::Deferred(reason) => {
                handed.outage = Some(reason);
                continue;
            }
            MintOutcome::RetryAt(_) => ReadingOutcome::Failure(None),
            MintOutcome::OnHold => ReadingOutcome::Waiting(
                "auto-mint was switched off, or rolled back, before it was minted".to_owned(),
            ),
            MintOutcome::NotDue(at) => {
                ReadingOutcome::Waiting(format!("its backoff is not over before {at}"))
            }
            // Other readings can be paid: this one waits for the fee payer to be funded.
            MintOutcome::InsufficientFunds(reason) => ReadingOutcome::Waiting(reason.to_string()),
            MintOutcome::Unknown => {
                ReadingOutcome::Failure(Some("there is no such reading".to_owned()))
            }
        };
        known.push((reading, outcome));
    }
    if batches::close(&context.pool, batch, &known).await? > 0 {
        handed.progressed = true;
    }
    crate::failpoint!("queue.batch_handed_in");
    Ok(handed)
}

/// A minter that does not answer in time has not refused: the reading is handed in again.
async fn mint(context: &QueueContext, reading: Uuid, permission: MintPermission) -> MintOutcome {
    let minted = tokio::time::timeout(HAND_IN_LIMIT, context.minter.mint(reading, permission));
    minted
        .await
        .unwrap_or_else(|_| MintOutcome::Deferred(DeferReason::MinterTimeout(HAND_IN_LIMIT)))
}
