//! Deletes finished jobs, in bounded steps. Their results are stored with their readings.

use sqlx::PgPool;

/// Jobs deleted in one statement.
const JOBS_PER_STEP: u32 = 2_000;
/// Statements in one call at most; the next call continues.
const STEPS: usize = 50;

/// Deletes jobs that ended more than ten minutes ago, dead ones after a week (an operator needs to see them), and workers
/// that no job refers to any more. Returns the number of jobs.
pub async fn prune_finished_jobs(pool: &PgPool) -> sqlx::Result<u64> {
    let mut pruned = 0;
    for _ in 0..STEPS {
        let step = sqlx::query(
            "DELETE FROM apalis.jobs
             WHERE id IN (
                 SELECT id
                 FROM apalis.jobs
                 WHERE ((status = 'Done' OR (status = 'Failed' AND attempts >= max_attempts))
                        AND done_at < now() - INTERVAL '10 minutes')
                    OR (status = 'Killed' AND done_at < now() - INTERVAL '7 days')
                 LIMIT $1
                 FOR UPDATE SKIP LOCKED
             )",
        )
        .bind(i64::from(JOBS_PER_STEP))
        .execute(pool)
        .await?
        .rows_affected();
        pruned += step;
        if step < u64::from(JOBS_PER_STEP) {
            break;
        }
    }
    sqlx::query(
        "DELETE FROM apalis.workers AS worker
         WHERE worker.last_seen < now() - INTERVAL '1 hour'
           AND NOT EXISTS (SELECT FROM apalis.jobs AS job WHERE job.lock_by = worker.id)",
    )
    .execute(pool)
    .await?;
    Ok(pruned)
}
