//! Enqueues batches again whose job was lost, and deletes old batches.

use sqlx::PgPool;
use uuid::Uuid;

use super::lifecycle::{begin_trigger, finish, stop_claiming};
use super::outcomes::{OpenRows, close_open};
use crate::db;
use crate::outbox::{self, Job, Topic, TriggerBatch};

/// Batches enqueued again in one call.
const REQUEUED_AT_ONCE: i64 = 100;
/// Rows of one DELETE: a transaction short enough that no other one waits for it noticeably.
const ROWS_PER_STEP: u32 = 2_000;
/// Statements in one call at most; the next call continues.
const STEPS: usize = 50;

/// Enqueues a new job for every trigger that has not ended and has no live job: the queue may lose one. A trigger whose job
/// was dead-lettered (it kills each worker that runs it) is ended instead. Returns how many it enqueued.
pub async fn requeue_stranded(pool: &PgPool) -> sqlx::Result<u64> {
    let stranded: Vec<(Uuid, i32, bool)> = sqlx::query_as(
        "SELECT batch.id, batch.slice, COALESCE(job.status IN ('Failed', 'Killed'), FALSE)
         FROM batches AS batch
         LEFT JOIN apalis.jobs AS job
           ON job.job_type = $1
          AND job.idempotency_key = batch.id::TEXT || ':' || batch.slice::TEXT
         WHERE batch.kind = 'trigger'
           AND batch.finished_at IS NULL
           AND (job.id IS NULL
                OR job.status IN ('Done', 'Killed')
                OR (job.status = 'Failed' AND job.attempts >= job.max_attempts))
         ORDER BY batch.id
         LIMIT $2",
    )
    .bind(TriggerBatch::NAME)
    .bind(REQUEUED_AT_ONCE)
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::new();
    let mut requeued = 0;
    for (batch, slice, is_dead) in stranded {
        if is_dead {
            end(pool, batch).await?;
        } else {
            jobs.push(TriggerBatch::slice(batch, slice));
            requeued += 1;
        }
    }
    if jobs.is_empty() {
        return Ok(0);
    }
    let mut transaction = db::begin(pool).await?;
    outbox::enqueue(&mut transaction, &jobs).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    tracing::warn!(
        batches = requeued,
        "batches that had lost their job were enqueued again"
    );
    Ok(requeued)
}

/// No job will run this batch again, so its submitted readings are not awaited.
async fn end(pool: &PgPool, batch: Uuid) -> sqlx::Result<()> {
    const REASON: &str =
        "its job was dead-lettered; check the log of the workers, then trigger again";
    tracing::error!(batch_id = %batch, "batch ended: its job ended repeatedly without a result");
    let Some(batch) = begin_trigger(pool, batch).await? else {
        return Ok(());
    };
    stop_claiming(pool, batch.id, REASON).await?;
    while close_open(pool, batch.id, OpenRows::All, REASON).await? > 0 {}
    finish(pool, &batch).await?;
    Ok(())
}

/// Deletes batches that ended more than 30 days ago, in bounded steps: first their readings, then the batches. The newest
/// sweep stays, because the clock compares its tick. Returns the number of deleted rows.
pub async fn prune(pool: &PgPool) -> sqlx::Result<u64> {
    let mut pruned = 0;
    for _ in 0..STEPS {
        let readings = sqlx::query(
            "DELETE FROM batch_readings
             WHERE (batch, reading) IN (
                 SELECT item.batch, item.reading
                 FROM batches AS batch
                 JOIN batch_readings AS item ON item.batch = batch.id
                 WHERE batch.finished_at < now() - INTERVAL '30 days'
                 LIMIT $1
             )",
        )
        .bind(i64::from(ROWS_PER_STEP))
        .execute(pool)
        .await?
        .rows_affected();
        pruned += readings;
        if readings == u64::from(ROWS_PER_STEP) {
            continue;
        }
        let batches = sqlx::query(
            "DELETE FROM batches AS batch
             WHERE batch.id IN (
                 SELECT old.id
                 FROM batches AS old
                 WHERE old.finished_at < now() - INTERVAL '30 days'
                   AND old.id < (
                       SELECT newest.id
                       FROM batches AS newest
                       WHERE newest.kind = 'sweep'
                       ORDER BY newest.id DESC
                       LIMIT 1
                   )
                   AND NOT EXISTS (SELECT FROM batch_readings AS item WHERE item.batch = old.id)
                 LIMIT $1
             )",
        )
        .bind(i64::from(ROWS_PER_STEP))
        .execute(pool)
        .await?
        .rows_affected();
        pruned += batches;
        if batches < u64::from(ROWS_PER_STEP) {
            break;
        }
    }
    Ok(pruned)
}
