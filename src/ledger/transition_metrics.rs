//! Reports committed changes of state to the metrics and to the readings' traces.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::changed_readings::ChangedReading;
use crate::telemetry::traces::{self, Step, StepKind, attributes};
use crate::telemetry::{Stage, names, observe_stage};

/// The service level that boards and alerts measure: a reading is minted within this time after its acceptance. Longer than a
/// blockhash lives, so that one transaction may be lost and proven dead; shorter than a meter's interval.
pub const MINT_TIME_TARGET: Duration = Duration::from_secs(300);

/// A committed change of mint transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    Recorded,
    Confirmed,
    Finalized,
    Dead,
    Forked,
    Quarantined,
}

impl TransactionOutcome {
    /// Value of the label `outcome`, in [`names::ALL`].
    fn label(self) -> &'static str {
        match self {
            TransactionOutcome::Recorded => "recorded",
            TransactionOutcome::Confirmed => "confirmed",
            TransactionOutcome::Finalized => "finalized",
            TransactionOutcome::Dead => "dead",
            TransactionOutcome::Forked => "forked",
            TransactionOutcome::Quarantined => "quarantined",
        }
    }
}

/// Counts mint transactions by their outcome.
pub fn count_transactions(outcome: TransactionOutcome, count: usize) {
    metrics::counter!(names::MINT_TRANSACTIONS, "outcome" => outcome.label())
        .increment(length(count));
}

pub fn count_refused(readings: usize) {
    metrics::counter!(names::MINTING_FAILURES).increment(length(readings));
}

/// Cost of confirmed transactions as it was booked, lamports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paid {
    /// For signatures.
    pub base_fee: u64,
    pub priority_fee: u64,
    /// Of the token accounts that they created.
    pub rent: u64,
}

pub fn report_confirmed(transactions: usize, paid: Paid, readings: &[ChangedReading]) {
    count_transactions(TransactionOutcome::Confirmed, transactions);
    for (kind, lamports) in [
        ("fee", paid.base_fee),
        ("priority", paid.priority_fee),
        ("rent", paid.rent),
    ] {
        metrics::counter!(names::FEES_PAID_LAMPORTS, "kind" => kind).increment(lamports);
    }
    metrics::counter!(names::MINTING_SUCCESSES).increment(length(readings.len()));
    // Each transaction's sum fits 64 bits, the sum of several may not.
    let base_units = readings
        .iter()
        .map(|reading| reading.base_units.get())
        .fold(0, u64::saturating_add);
    metrics::counter!(names::TOKENS_MINTED).increment(base_units);
    for reading in readings {
        metrics::histogram!(names::MINT_ATTEMPTS).record(f64::from(reading.attempts) + 1.0);
    }
    for waiting_since in readings.iter().filter_map(|reading| reading.waiting_since) {
        let outcome = if since(waiting_since) <= MINT_TIME_TARGET {
            "kept"
        } else {
            "late"
        };
        metrics::counter!(names::MINT_PROMISES, "outcome" => outcome).increment(1);
    }
    observe(Stage::Confirmed, readings);
    trace(StepKind::Confirmation, readings, |reading| {
        reading.recorded_at
    });
}

/// Reports a transaction that the chain charged at another sum than was booked; lamports.
pub fn report_charged(booked: u64, charged: u64) {
    for (direction, lamports) in [
        ("more", charged.saturating_sub(booked)),
        ("less", booked.saturating_sub(charged)),
    ] {
        metrics::counter!(names::FEES_MISBOOKED_LAMPORTS, "direction" => direction)
            .increment(lamports);
    }
}

pub fn report_finalized(transactions: usize, readings: &[ChangedReading]) {
    count_transactions(TransactionOutcome::Finalized, transactions);
    observe(Stage::Finalized, readings);
    trace(StepKind::Finalization, readings, |reading| {
        reading.confirmed_at
    });
}

fn observe(stage: Stage, readings: &[ChangedReading]) {
    for reading in readings {
        observe_stage(stage, since(reading.accepted_at));
    }
}

/// `begun` returns when the step began.
fn trace(
    kind: StepKind,
    readings: &[ChangedReading],
    begun: impl Fn(&ChangedReading) -> Option<DateTime<Utc>>,
) {
    if !traces::is_on() {
        return;
    }
    for reading in readings {
        let begun = begun(reading).unwrap_or_else(Utc::now);
        let signature = reading.signature.map(|signature| signature.to_string());
        let slot = reading.slot.unwrap_or_default().get();
        Step::ended_now(kind, reading.id, begun)
            .with(attributes::SIGNATURE, signature.unwrap_or_default())
            .with(attributes::SLOT, slot.cast_signed())
            .export();
    }
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Time since a moment of the database's clock; zero when our clock is behind.
fn since(moment: DateTime<Utc>) -> Duration {
    (Utc::now() - moment).to_std().unwrap_or_default()
}
