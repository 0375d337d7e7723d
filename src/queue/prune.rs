//! Finished jobs are dropped, in bounded steps: the reading itself keeps what was done.

use sqlx::PgPool;

/// Jobs dropped in one statement.
const JOBS_PER_STEP: i64 = 2_000;
/// Statements in one call at most; the next one goes on.
const STEPS: usize = 50;

/// Drops jobs that ended more than ten minutes ago, dead ones after a week (a person is to see them), and workers that nothing points to any more. Returns the jobs.
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
        .bind(JOBS_PER_STEP)
        .execute(pool)
        .await?
        .rows_affected();
        pruned += step;
        if step < JOBS_PER_STEP as u64 {
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
