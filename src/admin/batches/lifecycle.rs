//! Begins a batch, advances it slice by slice, and ends it. Every step compares before it sets: a run that was suspended for
//! minutes changes nothing in a batch that another run has ended.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::batch::{Batch, BatchKind, Figures};
use crate::db;
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// The sweep to run now: the one that has not ended yet, or else a new one. `None`: a sweep has already run for this tick or a
/// later one; missed ticks are not made up for. `tick` is `None` when something other than the clock requests a sweep. A tick from
/// the future (a host's clock is wrong) counts as one in a minute, so that it holds back other sweeps no longer than that.
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

/// The trigger to run now; `None` when it has ended or does not exist.
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

/// The current slice of a batch that has not ended.
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

/// Starts the batch's next slice in the caller's transaction, which enqueues the job of the returned slice. `None`: another
/// job has started it already, or the batch has ended. `idle`: how long the batch has made no progress; `None` leaves the
/// stored value.
pub async fn start_next_slice(
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
    .bind(idle.map(|idle| i64::try_from(idle.as_millis()).unwrap_or(i64::MAX)))
    .fetch_optional(transaction)
    .await
}

/// From here on the batch claims no readings: it only waits for those that it has submitted, and ends as failed.
pub async fn stop_claiming(pool: &PgPool, batch: Uuid, reason: &str) -> sqlx::Result<()> {
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

/// Ends a batch that has no open rows, and publishes its figures if it found readings. `None`: it has open rows, or has ended
/// already.
pub async fn finish(pool: &PgPool, batch: &Batch) -> sqlx::Result<Option<Figures>> {
    let mut transaction = db::begin(pool).await?;
    let figures: Option<Figures> = sqlx::query_as(
        "UPDATE batches
         SET state = CASE WHEN error IS NULL THEN 'completed' ELSE 'failed' END,
             started_at = COALESCE(started_at, now()),
             finished_at = now()
         WHERE id = $1
           AND finished_at IS NULL
           AND successful_mints + failed_mints = total_readings
         RETURNING total_readings, successful_mints, failed_mints - waiting_mints AS failed_mints, waiting_mints",
    )
    .bind(batch.id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(figures) = figures else {
        return Ok(None);
    };
    match (figures.total, batch.kind) {
        (0, BatchKind::Sweep) => delete_empty_sweeps_before(&mut transaction, batch.id).await?,
        (0, BatchKind::Trigger) => {}
        _ => publish(&mut transaction, batch.id, figures).await?,
    }
    crate::failpoint!("batch.before_finish_commit");
    transaction.commit().await?;
    Ok(Some(figures))
}

/// With a sweep a minute and nothing to mint the table would grow without bound. The newest row stays: the status page shows
/// it, and the clock compares its tick.
async fn delete_empty_sweeps_before(
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

/// Clients without a token receive this event too, so it contains figures only.
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
        waiting_mints: Some(figures.waiting),
        ..EventFields::default()
    };
    let event = Event::new(EventType::BatchMintingCompleted, &fields);
    outbox::publish(transaction, &[event]).await?;
    outbox::notify(transaction, Topic::Outbox).await
}
