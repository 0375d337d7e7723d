//! Refused readings: attempts, backoff, and the end of patience.
//!
//! An attempt is used only when simulation or the chain refused *this* reading. What failed around it (time-outs,
//! overload, a lagging node, proven expiry) uses none.

use chrono::{DateTime, Utc};
use rand::Rng;
use solana_sdk::transaction::TransactionError;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::blame::Blame;
use super::guard::{mint_transaction_guard, reading_guard};
use super::transitions::{self, ChangedReading, event_fields};
use super::{LedgerError, RetrySchedule, transition_metrics};
use crate::domain::{MintTransactionEvent, ReadingEvent};
use crate::outbox::{self, Event, EventType, MintReading, NewJob, Topic};

/// A reading that cannot be paid as it is.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reading: Uuid,
    /// The sentence that owner and admin read.
    pub reason: String,
    /// Trying again by itself would not help: only a person can.
    pub permanent: bool,
}

/// What became of a refused reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRefusal {
    /// Tried again then.
    RetryAt(DateTime<Utc>),
    /// `failed`: an admin can retry it.
    Failed,
    /// It is not `pending` any more, or was changed since it was looked at: somebody else had it.
    Superseded,
}

/// A pending reading was refused before it was recorded (its token account, or simulation). `revision` is the one that was
/// looked at: a reading that changed since (an admin gave it another wallet, a rival was refused for it) is not judged by
/// what it was.
pub async fn refuse_pending(
    pool: &PgPool,
    schedule: &RetrySchedule,
    refusal: &Refusal,
    revision: i64,
) -> Result<AfterRefusal, LedgerError> {
    let mut transaction = pool.begin().await?;
    let after = refuse(&mut transaction, schedule, refusal, Some(revision)).await?;
    if after != AfterRefusal::Superseded {
        outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    }
    transaction.commit().await?;
    transition_metrics::count_refused(1);
    Ok(after)
}

/// After a transaction failed for what is no reading's fault: long enough for two looks at the fee payer and the mint, which stop
/// minting if that fault lasts. Each try costs a fee.
const NO_READINGS_FAULT_PAUSE_SECS: f64 = 10.0;

/// Landed with an error, at finality: not paid. The readings to blame use up an attempt and are packed alone next time; their
/// neighbours are due at once. Where nobody can tell all are packed alone, and one that was alone already is to blame. What
/// was no reading's fault uses no attempt: it is tried again after a pause.
pub async fn mark_dead_failed(
    pool: &PgPool,
    schedule: &RetrySchedule,
    number: i64,
    error: &TransactionError,
    blame: &Blame,
) -> Result<u64, LedgerError> {
    let guard = mint_transaction_guard(MintTransactionEvent::Dead);
    let mut transaction = pool.begin().await?;
    let reason = format!("failed on chain: {error}");
    if !transitions::mark_dead(&mut transaction, number, &guard, &reason).await? {
        return Ok(0);
    }
    let readings =
        transitions::move_readings(&mut transaction, &[number], ReadingEvent::Dead).await?;
    transitions::release_links(&mut transaction, number).await?;
    let ids: Vec<Uuid> = readings.iter().map(|reading| reading.id).collect();
    let to_blame: &[Uuid] = match blame {
        Blame::Readings(to_blame) => to_blame,
        Blame::Unknown if ids.len() == 1 => &ids,
        Blame::Unknown | Blame::NoReading | Blame::ComputeLimit => &[],
    };
    let (refused, others): (Vec<Uuid>, Vec<Uuid>) = ids
        .iter()
        .copied()
        .partition(|reading| to_blame.contains(reading));
    for reading in &refused {
        let refusal = Refusal {
            reading: *reading,
            reason: reason.clone(),
            permanent: false,
        };
        refuse(&mut transaction, schedule, &refusal, None).await?;
    }
    // One that failed before gets all the compute units that it may need.
    if matches!(blame, Blame::Unknown | Blame::ComputeLimit) {
        pack_alone(&mut transaction, &others).await?;
    }
    let due_at = match blame {
        Blame::NoReading | Blame::ComputeLimit => put_off(&mut transaction, &others).await?,
        Blame::Readings(_) | Blame::Unknown => None,
    };
    let jobs: Vec<NewJob> = others
        .iter()
        .map(|reading| MintReading::due(*reading, due_at))
        .collect();
    outbox::enqueue(&mut transaction, &jobs).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    transition_metrics::count_transactions("dead", 1);
    transition_metrics::count_refused(refused.len());
    Ok(readings.len() as u64)
}

async fn pack_alone(transaction: &mut PgConnection, readings: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE readings
         SET pack_alone = TRUE, revision = revision + 1
         WHERE id = ANY($1)",
    )
    .bind(readings)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Gives when they are due; `None`: there are none.
async fn put_off(
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

#[derive(FromRow)]
struct Attempts {
    attempts: i32,
}

async fn refuse(
    transaction: &mut PgConnection,
    schedule: &RetrySchedule,
    refusal: &Refusal,
    revision: Option<i64>,
) -> Result<AfterRefusal, LedgerError> {
    let refused = reading_guard(ReadingEvent::Refused);
    let row: Option<Attempts> = sqlx::query_as(
        "SELECT attempts
         FROM readings
         WHERE id = $1
           AND state = ANY($2)
           AND ($3::BIGINT IS NULL OR revision = $3)
         FOR UPDATE",
    )
    .bind(refusal.reading)
    .bind(refused.from)
    .bind(revision)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else {
        return Ok(AfterRefusal::Superseded);
    };
    let attempts = row.attempts + 1;
    let delay = if refusal.permanent {
        None
    } else {
        schedule.delay_after(attempts as u32, rand::rng().random())
    };
    match delay {
        Some(delay) => {
            let next_attempt_at: DateTime<Utc> = sqlx::query_scalar(
                "UPDATE readings
                 SET attempts = $2, next_attempt_at = now() + make_interval(secs => $3), last_error = $4,
                     pack_alone = TRUE, revision = revision + 1
                 WHERE id = $1
                 RETURNING next_attempt_at",
            )
            .bind(refusal.reading)
            .bind(attempts)
            .bind(delay.as_secs_f64())
            .bind(&refusal.reason)
            .fetch_one(&mut *transaction)
            .await?;
            let job = MintReading::due(refusal.reading, Some(next_attempt_at));
            outbox::enqueue(transaction, &[job]).await?;
            Ok(AfterRefusal::RetryAt(next_attempt_at))
        }
        None => {
            mark_failed(transaction, refusal, attempts).await?;
            Ok(AfterRefusal::Failed)
        }
    }
}

async fn mark_failed(
    transaction: &mut PgConnection,
    refusal: &Refusal,
    attempts: i32,
) -> Result<(), LedgerError> {
    let guard = reading_guard(ReadingEvent::GivenUp);
    let failed: Option<ChangedReading> = sqlx::query_as(
        "UPDATE readings AS reading
         SET state = $3, attempts = $4, last_error = $5, pack_alone = TRUE,
             revision = reading.revision + 1
         FROM meters AS meter
         WHERE reading.id = $1
           AND reading.state = ANY($2)
           AND meter.id = reading.meter
         RETURNING reading.id, meter.owner, meter.serial, reading.wallet, reading.kwh,
                   reading.base_units, ''::BYTEA AS signature, reading.accepted_at",
    )
    .bind(refusal.reading)
    .bind(guard.from)
    .bind(guard.to)
    .bind(attempts)
    .bind(&refusal.reason)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(reading) = failed {
        let mut fields = event_fields(&reading)?;
        fields.error_reason = Some(refusal.reason.clone());
        outbox::publish(transaction, &[Event::new(EventType::MintFailed, &fields)]).await?;
    }
    Ok(())
}
