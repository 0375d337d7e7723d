//! Begins, hands on and ends a batch. Every step compares and sets: a run that was asleep for minutes changes nothing that
//! another has ended.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::batch::{Batch, BatchKind, Figures};
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// The sweep to run now: the one that is not ended yet, or else a new one. `None`: this tick, or a later one, was a sweep
/// already; ticks that were missed are not made up. `tick` is `None` when something else than the clock asks. A tick from the
/// future (the clock of a host is wrong) is taken for one in a minute, so that it keeps others from sweeping no longer.
pub async fn begin_sweep(pool: &PgPool, tick: Option<i64>) -> sqlx::Result<Option<Batch>> {
    let unfinished: Option<Batch> = sqlx::query_as(
        "SELECT id, kind, meter, owner, ending_before, include_failed, requested_at, slice, idle_ms, error
         FROM batches
         WHERE kind = 'sweep'
           AND finished_at IS NULL
         ORDER BY id
         LIMIT 1",
    )
    .fetch_optional(pool)
    .await?;
    if unfinished.is_some() {
        return Ok(unfinished);
    }
    sqlx::query_as(
        "INSERT INTO batches (id, kind, tick, state, started_at)
         SELECT $1, 'sweep', CASE WHEN $2 IS NOT NULL THEN due.tick END, 'running', now()
         FROM (SELECT LEAST($2, EXTRACT(EPOCH FROM now())::BIGINT + 60)) AS due (tick)
         WHERE $2 IS NULL
            OR NOT EXISTS (SELECT FROM batches WHERE batches.tick >= due.tick)
         ON CONFLICT DO NOTHING
         RETURNING id, kind, meter, owner, ending_before, include_failed, requested_at, slice, idle_ms, error",
    )
    .bind(Uuid::now_v7())
    .bind(tick)
    .fetch_optional(pool)
    .await
}

/// The trigger to run now; `None` when it is ended, or never was.
pub async fn begin_trigger(pool: &PgPool, batch: Uuid) -> sqlx::Result<Option<Batch>> {
    sqlx::query_as(
        "UPDATE batches
         SET state = 'running', started_at = COALESCE(started_at, now())
         WHERE id = $1
           AND finished_at IS NULL
         RETURNING id, kind, meter, owner, ending_before, include_failed, requested_at, slice, idle_ms, error",
    )
    .bind(batch)
    .fetch_optional(pool)
    .await
}

/// The present slice of a batch that is not ended.
pub async fn slice_of(pool: &PgPool, batch: Uuid) -> sqlx::Result<Option<i32>> {
    sqlx::query_scalar(
        "SELECT slice
         FROM batches
         WHERE id = $1
           AND finished_at IS NULL",
    )
    .bind(batch)
    .fetch_optional(pool)
    .await
}

/// In the caller's transaction, which enqueues the job of the returned slice. `None`: another job has handed it on already,
/// or it is ended. `idle`: how long it has not got any further, in a row; `None` leaves that as it is.
pub async fn hand_on(
    transaction: &mut PgConnection,
    batch: Uuid,
    slice: i32,
    idle: Option<Duration>,
) -> sqlx::Result<Option<i32>> {
    sqlx::query_scalar(
        "UPDATE batches
         SET slice = slice + 1, idle_ms = COALESCE($3, idle_ms)
         WHERE id = $1
           AND slice = $2
           AND finished_at IS NULL
         RETURNING slice",
    )
    .bind(batch)
    .bind(slice)
    .bind(idle.map(|idle| idle.as_millis() as i64))
    .fetch_optional(transaction)
    .await
}

/// It claims no more: from here on it only waits for what it has submitted, and ends as failed.
pub async fn give_up(pool: &PgPool, batch: Uuid, reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE batches
         SET error = $2
         WHERE id = $1
           AND finished_at IS NULL
           AND error IS NULL",
    )
    .bind(batch)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

/// Ends a batch that has no open rows, and publishes what it came to if it found something. `None`: it has open rows, or
/// was ended already.
pub async fn finish(pool: &PgPool, batch: &Batch) -> sqlx::Result<Option<Figures>> {
    let mut transaction = pool.begin().await?;
    let figures: Option<Figures> = sqlx::query_as(
        "UPDATE batches
         SET state = CASE WHEN error IS NULL THEN 'completed' ELSE 'failed' END,
             started_at = COALESCE(started_at, now()),
             finished_at = now()
         WHERE id = $1
           AND finished_at IS NULL
           AND successful_mints + failed_mints = total_readings
         RETURNING total_readings, successful_mints, failed_mints",
    )
    .bind(batch.id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(figures) = figures else {
        return Ok(None);
    };
    match (figures.total, batch.kind) {
        (0, BatchKind::Sweep) => forget_empty_sweeps_before(&mut transaction, batch.id).await?,
        (0, BatchKind::Trigger) => {}
        _ => publish(&mut transaction, batch.id, figures).await?,
    }
    crate::failpoint!("batch.before_finish_commit");
    transaction.commit().await?;
    Ok(Some(figures))
}

/// With a sweep a minute and nothing to do the table would grow for ever. The newest row tells status and clock.
async fn forget_empty_sweeps_before(
    transaction: &mut PgConnection,
    newest: Uuid,
) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM batches
         WHERE id IN (
             SELECT id
             FROM batches
             WHERE kind = 'sweep'
               AND id < $1
             ORDER BY id DESC
             LIMIT 10
         )
           AND state = 'completed'
           AND total_readings = 0",
    )
    .bind(newest)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Whoever listens without a token sees this event, so it says nothing but figures.
async fn publish(
    transaction: &mut PgConnection,
    batch: Uuid,
    figures: Figures,
) -> sqlx::Result<()> {
    let fields = EventFields {
        batch_id: Some(batch),
        total_readings: Some(figures.total),
        successful_mints: Some(figures.successful),
        failed_mints: Some(figures.failed),
        ..EventFields::default()
    };
    let event = Event::new(EventType::BatchMintingCompleted, &fields);
    outbox::publish(transaction, &[event]).await?;
    outbox::notify(transaction, Topic::Outbox).await
}
