//! Rescues batches whose job is lost, and forgets old ones.

use sqlx::PgPool;
use uuid::Uuid;

use super::close::close_open;
use super::life::{begin_trigger, finish, give_up};
use crate::outbox::{self, Job, JobKind, Topic};

/// Batches looked at in one call.
const RESCUED_AT_ONCE: i64 = 100;
/// Rows of one DELETE: a short transaction that nobody waits for.
const ROWS_PER_STEP: i64 = 2_000;
/// Statements in one call at most; the next one goes on.
const STEPS: usize = 50;

/// Gives triggers that are not ended and have no live job a new one: the queue may lose a job. One whose job was given up
/// (it kills whoever runs it) is ended instead. Returns how many it enqueued again.
pub async fn rescue(pool: &PgPool) -> sqlx::Result<u64> {
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
    .bind(JobKind::TriggerBatch.as_str())
    .bind(RESCUED_AT_ONCE)
    .fetch_all(pool)
    .await?;
    let mut jobs = Vec::new();
    for (batch, slice, given_up) in stranded {
        if given_up {
            end(pool, batch).await?;
        } else {
            jobs.push(Job::trigger_batch(batch, slice));
        }
    }
    if jobs.is_empty() {
        return Ok(0);
    }
    let mut transaction = pool.begin().await?;
    outbox::enqueue(&mut transaction, &jobs).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    tracing::warn!(
        batches = jobs.len(),
        "batches had lost their job; they go on"
    );
    Ok(jobs.len() as u64)
}

/// Nobody runs it any more, so nothing is awaited.
async fn end(pool: &PgPool, batch: Uuid) -> sqlx::Result<()> {
    const REASON: &str = "its job was given up; look at the log of the workers, then trigger again";
    tracing::error!(batch_id = %batch, "a batch was given up: its job ended again and again without an answer");
    let Some(batch) = begin_trigger(pool, batch).await? else {
        return Ok(());
    };
    give_up(pool, batch.id, REASON).await?;
    while close_open(pool, batch.id, false, REASON).await? > 0 {}
    finish(pool, &batch).await?;
    Ok(())
}

/// Forgets batches that ended more than 30 days ago, in bounded steps: first their readings, then they. The newest sweep
/// stays, since the clock compares with it. Returns the rows.
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
        .bind(ROWS_PER_STEP)
        .execute(pool)
        .await?
        .rows_affected();
        pruned += readings;
        if readings == ROWS_PER_STEP as u64 {
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
        .bind(ROWS_PER_STEP)
        .execute(pool)
        .await?
        .rows_affected();
        pruned += batches;
        if batches < ROWS_PER_STEP as u64 {
            break;
        }
    }
    Ok(pruned)
}
