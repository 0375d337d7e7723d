//! Ends a transaction that landed with an error, at finality: not paid (rules 3 and 5).

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use solana_sdk::pubkey::Pubkey;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::blame::{Blame, blame};
use super::limits::ResolverLimits;
use super::open_transactions;
use crate::chain::TransactionFailure;
use crate::db::{self, within};
use crate::domain::{MintNumber, MintTransactionEvent, Wallet, signed_bytes};
use crate::ledger::error::LedgerError;
use crate::ledger::refusal::{Payee, Refusal, RefusalReason};
use crate::ledger::refuse::{pack_alone, refuse};
use crate::ledger::retry_schedule::RetrySchedule;
use crate::ledger::transition_metrics::{self, TransactionOutcome};
use crate::ledger::transitions;
use crate::outbox::{self, MintReading, NewJob, Topic};

/// Pause after a failure that is not a reading's fault: long enough for two probes of the fee payer and the mint, which stop
/// minting if the cause lasts. Each attempt costs a fee.
const NO_READINGS_FAULT_PAUSE_SECS: f64 = 10.0;

/// Marks the transaction dead. Returns how many readings it releases.
pub async fn end_failed(
    pool: &PgPool,
    mint: &Pubkey,
    limits: &ResolverLimits,
    number: MintNumber,
    error: &TransactionFailure,
) -> Result<usize, LedgerError> {
    let limit = limits.transaction_limit;
    let readings = within(limit, open_transactions::readings_of(pool, number)).await?;
    let blame = within(limit, find_blame(pool, mint, number, error, &readings)).await?;
    let payees = readings
        .into_iter()
        .map(|(reading, wallet)| (reading, Payee::of(wallet, mint)))
        .collect();
    let ended = mark_dead_failed(pool, &limits.schedule, number, error, &blame, &payees);
    within(limit, ended).await
}

async fn find_blame(
    pool: &PgPool,
    mint: &Pubkey,
    number: MintNumber,
    error: &TransactionFailure,
    readings: &[(Uuid, Wallet)],
) -> sqlx::Result<Blame> {
    let stored = open_transactions::signed_bytes(pool, &[number]).await?;
    Ok(stored
        .first()
        .and_then(|(_, bytes)| signed_bytes::decode(bytes).ok())
        .map_or(Blame::Unknown, |transaction| {
            blame(&transaction.message, error, mint, readings)
        }))
}

/// The readings to blame use up an attempt and are packed alone next time; their neighbours are due at once. Where the blame is
/// unknown all are packed alone, and one that was alone already is to blame. A failure that is not a reading's fault uses no
/// attempt: the readings are retried after a pause.
async fn mark_dead_failed(
    pool: &PgPool,
    schedule: &RetrySchedule,
    number: MintNumber,
    error: &TransactionFailure,
    blame: &Blame,
    payees: &HashMap<Uuid, Payee>,
) -> Result<usize, LedgerError> {
    let mut transaction = db::begin(pool).await?;
    let reason = format!("failed on chain: {error}");
    let event = MintTransactionEvent::Dead;
    let dead = transitions::mark_dead(&mut transaction, number, event, &reason).await?;
    let Some(readings) = dead else {
        return Ok(0);
    };
    let ids: Vec<Uuid> = readings.iter().map(|reading| reading.id).collect();
    let to_blame: &[Uuid] = match blame {
        Blame::Readings(to_blame) => to_blame,
        Blame::Unknown if ids.len() == 1 => &ids,
        Blame::Unknown | Blame::NoReading | Blame::ComputeLimit => &[],
    };
    let (refused, others): (Vec<Uuid>, Vec<Uuid>) = ids
        .iter()
        .copied()
        .partition(|reading| to_blame.contains(reading) && payees.contains_key(reading));
    let refusals = refused
        .iter()
        .filter_map(|reading| Some((*reading, *payees.get(reading)?)));
    for (reading, payee) in refusals {
        let error = error.clone();
        let refusal = Refusal {
            reading,
            reason: RefusalReason::FailedOnChain { payee, error },
        };
        refuse(&mut transaction, schedule, &refusal, None).await?;
    }
    // A reading that failed before gets all the compute units that it may need.
    if matches!(blame, Blame::Unknown | Blame::ComputeLimit) {
        pack_alone(&mut transaction, &others).await?;
    }
    let due_at = match blame {
        Blame::NoReading | Blame::ComputeLimit => postpone(&mut transaction, &others).await?,
        Blame::Readings(_) | Blame::Unknown => None,
    };
    let jobs: Vec<NewJob> = others
        .iter()
        .map(|reading| MintReading::due(*reading, due_at))
        .collect();
    outbox::enqueue(&mut transaction, &jobs).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    transition_metrics::count_transactions(TransactionOutcome::Dead, 1);
    transition_metrics::count_refused(refused.len());
    Ok(readings.len())
}

/// Returns when they are due; `None` if there are none.
async fn postpone(
    transaction: &mut PgConnection,
    readings: &[Uuid],
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let due: Vec<DateTime<Utc>> = sqlx::query_scalar(
        "UPDATE readings
         SET next_attempt_at = now() + make_interval(secs => $2), revision = revision + 1
         WHERE id = ANY($1)
         RETURNING next_attempt_at",
    )
    .bind(readings)
    .bind(NO_READINGS_FAULT_PAUSE_SECS)
    .fetch_all(transaction)
    .await?;
    Ok(due.first().copied())
}
