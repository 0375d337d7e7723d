//! Refused readings: uses an attempt, schedules the next one, and marks a reading failed when none is left.
//!
//! An attempt is used only when simulation or the chain refused *this* reading. Failures around it (time-outs, overload, a
//! lagging node, proven expiry) use none.

use rand::Rng;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::changed_readings::ChangedReading;
use super::error::LedgerError;
use super::guard::reading_guard;
use super::refusal::{AfterRefusal, Refusal};
use super::retry_schedule::RetrySchedule;
use super::transition_metrics;
use crate::db;
use crate::domain::ReadingEvent;
use crate::outbox::{self, Event, EventType, MintReading, Topic};

/// Refuses a pending reading before it is recorded (its token account, its amount, or simulation). `revision` is the one that the
/// caller judged: a reading that changed since (an admin gave it another wallet, another batch refused it) is left as it is.
pub async fn refuse_pending(
    pool: &PgPool,
    schedule: &RetrySchedule,
    refusal: &Refusal,
    revision: i64,
) -> Result<AfterRefusal, LedgerError> {
    let mut transaction = db::begin(pool).await?;
    let after = refuse(&mut transaction, schedule, refusal, Some(revision)).await?;
    if after != AfterRefusal::Superseded {
        outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    }
    transaction.commit().await?;
    transition_metrics::count_refused(1);
    Ok(after)
}

/// Refuses a pending reading in the caller's transaction. `revision`: the only one to which the refusal applies, if there is one.
pub async fn refuse(
    transaction: &mut PgConnection,
    schedule: &RetrySchedule,
    refusal: &Refusal,
    revision: Option<i64>,
) -> Result<AfterRefusal, LedgerError> {
    let refused = reading_guard(ReadingEvent::Refused);
    let used: Option<i32> = sqlx::query_scalar(
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
    let Some(used) = used else {
        return Ok(AfterRefusal::Superseded);
    };
    let attempts = used + 1;
    let delay = if refusal.reason.is_permanent() {
        None
    } else {
        schedule.delay_after(attempts.unsigned_abs(), rand::rng().random())
    };
    let Some(delay) = delay else {
        mark_failed(transaction, refusal, attempts).await?;
        return Ok(AfterRefusal::Failed);
    };
    let next_attempt_at = sqlx::query_scalar(
        "UPDATE readings
         SET attempts = $2, next_attempt_at = now() + make_interval(secs => $3), last_error = $4,
             pack_alone = TRUE, revision = revision + 1
         WHERE id = $1
         RETURNING next_attempt_at",
    )
    .bind(refusal.reading)
    .bind(attempts)
    .bind(delay.as_secs_f64())
    .bind(refusal.reason.to_string())
    .fetch_one(&mut *transaction)
    .await?;
    let job = MintReading::due(refusal.reading, Some(next_attempt_at));
    outbox::enqueue(transaction, &[job]).await?;
    Ok(AfterRefusal::RetryAt(next_attempt_at))
}

async fn mark_failed(
    transaction: &mut PgConnection,
    refusal: &Refusal,
    attempts: i32,
) -> Result<(), LedgerError> {
    let guard = reading_guard(ReadingEvent::GivenUp);
    let reason = refusal.reason.to_string();
    let failed: Option<ChangedReading> = sqlx::query_as(
        "UPDATE readings AS reading
         SET state = $3, attempts = $4, last_error = $5, pack_alone = TRUE,
             revision = reading.revision + 1
         FROM meters AS meter
         WHERE reading.id = $1
           AND reading.state = ANY($2)
           AND meter.id = reading.meter
         RETURNING reading.id, meter.owner, meter.serial, reading.wallet, reading.kwh,
                   reading.base_units, reading.accepted_at",
    )
    .bind(refusal.reading)
    .bind(guard.from)
    .bind(guard.to)
    .bind(attempts)
    .bind(&reason)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(reading) = failed {
        let mut fields = reading.event_fields();
        fields.error_reason = Some(reason);
        outbox::publish(transaction, &[Event::new(EventType::MintFailed, &fields)]).await?;
    }
    Ok(())
}

/// Each of these readings shares its next transaction with no other: one of them made the last one fail, and it is not known
/// which.
pub async fn pack_alone_next_time(pool: &PgPool, readings: &[Uuid]) -> Result<(), LedgerError> {
    let mut transaction = db::begin(pool).await?;
    pack_alone(&mut transaction, readings).await?;
    transaction.commit().await?;
    Ok(())
}

/// The same in the caller's transaction.
pub async fn pack_alone(transaction: &mut PgConnection, readings: &[Uuid]) -> sqlx::Result<()> {
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
