//! Answers the readings that a plan leaves out: refused, handed to the next batch, or waiting for funds.

use uuid::Uuid;

use super::affordability::LeftOut;
use super::answers::Answers;
use super::context::MintContext;
use super::costs::TransactionCosts;
use super::defer_reason::DeferReason;
use super::refuse::refuse;
use super::request::MintOutcome;
use crate::ledger::{self, RefusalReason, WaitingReason};

pub(super) async fn answer_left_out(
    context: &MintContext,
    left_out: LeftOut,
    costs: &TransactionCosts,
    answers: &mut Answers,
) {
    for (reading, base_units) in &left_out.oversized {
        let reason = RefusalReason::AboveTransactionLimit {
            base_units: *base_units,
            limit: context.limits.max_base_units_per_transaction,
        };
        refuse(context, reading, reason, answers).await;
    }
    for reading in left_out.carried {
        answers.carry(reading);
    }
    if !left_out.without_fee.is_empty() {
        context.chain.circuit_breaker.check_now();
        answers.defer(&left_out.without_fee, &DeferReason::NoFee);
    }
    if !left_out.without_rent.is_empty() {
        let reason = WaitingReason::NoRent {
            rent_lamports: costs.account_rent,
        };
        await_funds(context, &left_out.without_rent, reason, answers).await;
    }
}

/// These alone wait: readings for wallets that have a token account are paid meanwhile.
async fn await_funds(
    context: &MintContext,
    readings: &[Uuid],
    reason: WaitingReason,
    answers: &mut Answers,
) {
    tracing::warn!(
        readings = readings.len(),
        %reason,
        "readings for new wallets deferred"
    );
    let noted = ledger::note_waiting(&context.pool, readings, reason);
    if let Err(error) = context.in_time(noted).await {
        tracing::debug!(%error, "the reason for waiting was not stored on the readings");
    }
    for reading in readings {
        answers.give(*reading, MintOutcome::InsufficientFunds(reason.into()));
    }
}
