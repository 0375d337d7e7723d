//! Puts jobs of the queue into the caller's transaction.

use crate::db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{PgConnection, PgPool};
use ulid::Ulid;

use super::wake::{Topic, notify};

/// A kind of job: what it carries, as the enqueuer writes it and the worker reads it.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + Unpin + 'static {
    /// Name of its queue in `apalis.jobs.job_type`.
    const NAME: &'static str;
}

/// A job to be enqueued. Its key makes it single: while a job of its kind with that key waits or runs, another is not added.
#[derive(Clone, Debug)]
pub struct NewJob {
    job_type: &'static str,
    key: String,
    payload: Vec<u8>,
    /// `None`: now.
    run_at: Option<DateTime<Utc>>,
}

impl NewJob {
    /// A job that is due at once.
    pub fn new<J: Job>(job: &J, key: String) -> NewJob {
        NewJob {
            job_type: J::NAME,
            key,
            // Payloads are flat structs of ids and texts, which serde_json always writes.
            payload: serde_json::to_vec(job).unwrap_or_default(),
            run_at: None,
        }
    }

    pub fn due(self, run_at: Option<DateTime<Utc>>) -> NewJob {
        NewJob { run_at, ..self }
    }

    pub fn job_type(&self) -> &'static str {
        self.job_type
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// As stored.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// How often the queue fetches one job again before it stays `Failed`. Readings count their own attempts, so this only
/// bounds a job whose handler keeps crashing. The sweep picks up its reading.
const MAX_JOB_RUNS: i32 = 25;

/// Enqueues jobs in the caller's transaction. A finished job with the same key becomes pending again, because finished rows
/// keep their key; a job that waits or runs stays as it is. The caller ends the transaction with
/// [`notify`].
pub async fn enqueue(transaction: &mut PgConnection, jobs: &[NewJob]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = jobs.iter().map(|_| Ulid::generate().to_string()).collect();
    let job_types: Vec<&str> = jobs.iter().map(|job| job.job_type).collect();
    let payloads: Vec<&[u8]> = jobs.iter().map(|job| job.payload.as_slice()).collect();
    let run_ats: Vec<Option<DateTime<Utc>>> = jobs.iter().map(|job| job.run_at).collect();
    let keys: Vec<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    sqlx::query(
        // One microsecond ahead keeps apalis' trigger silent, which would notify once per row.
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, idempotency_key)
         SELECT id, job_type, job, 'Pending', 0, $6, COALESCE(run_at, now() + INTERVAL '1 microsecond'), key
         FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BYTEA[], $4::TIMESTAMPTZ[], $5::TEXT[])
           AS job (id, job_type, job, run_at, key)
         -- One order for all writers: two batches that share keys never wait for each other in a circle.
         ORDER BY job_type, key
         ON CONFLICT (job_type, idempotency_key) DO UPDATE
         -- The payload too: the row may have been dead because its payload was unreadable.
         SET status = 'Pending', job = EXCLUDED.job, run_at = EXCLUDED.run_at, attempts = 0,
             lock_by = NULL, lock_at = NULL, done_at = NULL
         WHERE jobs.status IN ('Done', 'Failed', 'Killed')",
    )
    .bind(ids)
    .bind(job_types)
    .bind(payloads)
    .bind(run_ats)
    .bind(keys)
    .bind(MAX_JOB_RUNS)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Jobs made due in one transaction: bounds how long their rows are locked.
const JOBS_PER_STEP: u32 = 2_000;

/// Makes deferred jobs due now whose readings can be minted again: the outage that deferred them is over. A reading whose own
/// backoff is not over keeps its time. Works in bounded steps, so that workers begin with the first jobs at once. Returns the
/// number of jobs.
pub async fn wake_deferred(pool: &PgPool) -> sqlx::Result<u64> {
    let mut woken = 0;
    loop {
        let mut transaction = db::begin(pool).await?;
        let step = sqlx::query(
            "UPDATE apalis.jobs AS job
             SET status = 'Pending', attempts = 0, run_at = now(), lock_by = NULL, lock_at = NULL, done_at = NULL
             WHERE job.id IN (
                 SELECT deferred.id
                 FROM apalis.jobs AS deferred
                 JOIN readings AS reading ON reading.id::TEXT = deferred.idempotency_key
                 WHERE deferred.job_type = 'MintReading'
                   -- A deferred job is a failed one for apalis; one that has failed for good was deferred too often.
                   AND deferred.status = 'Failed'
                   AND reading.state = 'pending'
                   AND reading.next_attempt_at <= now()
                 LIMIT $1
                 -- Another process may do the same.
                 FOR UPDATE OF deferred SKIP LOCKED
             )",
        )
        .bind(i64::from(JOBS_PER_STEP))
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if step > 0 {
            notify(&mut transaction, Topic::OutboxAndJobs).await?;
        }
        transaction.commit().await?;
        woken += step;
        if step < u64::from(JOBS_PER_STEP) {
            return Ok(woken);
        }
    }
}
