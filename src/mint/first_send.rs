//! Step 7 of the pipeline: the first send of a recorded transaction.
//!
//! It runs in the background, and its result decides nothing: the resolver sends the same bytes again until the transaction
//! has landed or is proven dead.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::context::MintContext;
use super::sign_and_record::Recorded;
use super::stage_times::observe;
use crate::domain::TransactionFormat;
use crate::ledger;
use crate::telemetry::Stage;
use crate::telemetry::traces::SendFailure;

/// The send holds the batch's permit, so that no more batches are under way than allowed.
pub(super) fn send_in_background(
    context: &MintContext,
    recorded: Recorded,
    permit: &Arc<OwnedSemaphorePermit>,
) {
    let Recorded {
        transaction,
        format,
        accepted,
        span,
    } = recorded;
    let permit = Arc::clone(permit);
    let endpoints = context.chain.endpoints.clone();
    let formats = context.chain.transaction_formats;
    // Bytes whose blockhash has died cannot land any more, so the batch's permit is not held for their answer.
    let parameters = endpoints.parameters();
    let limit = parameters.within_blockhash_life(context.limits.transaction_limit);
    context.tracker.spawn(async move {
        let _permit = permit;
        crate::failpoint!("mint.before_send");
        let Some(endpoint) = endpoints.by_name(&transaction.endpoint) else {
            return;
        };
        let sending = span.around(ledger::send(endpoint, &transaction.signed_bytes));
        match tokio::time::timeout(limit, sending).await {
            Ok(Ok(())) => {
                observe(Stage::Sent, &accepted);
                span.sent(Ok(()));
            }
            Ok(Err(error)) => {
                // It stays recorded, and is signed anew only once it is proven dead; what is not recorded yet is packed as legacy.
                if format == TransactionFormat::V1 {
                    formats.note_refusal(endpoint, &error);
                }
                tracing::warn!(
                    signature = %transaction.signature, %error,
                    "first send failed; the same bytes are sent again"
                );
                // At once, if there is another endpoint, rather than by the resolver in two seconds.
                let others = ledger::send_to_others(
                    &endpoints,
                    &transaction.endpoint,
                    &transaction.signature,
                    &transaction.signed_bytes,
                );
                let _ = tokio::time::timeout(limit, span.around(others)).await;
                span.sent(Err(SendFailure::Rejected));
            }
            Err(_) => {
                tracing::warn!(
                    signature = %transaction.signature,
                    "first send timed out; the same bytes are sent again"
                );
                span.sent(Err(SendFailure::TimedOut));
            }
        }
        crate::failpoint!("mint.sent");
    });
}
