//! Jobs of the queue, put into the caller's transaction.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use ulid::Ulid;
use uuid::Uuid;

/// The queue's kinds of job; the name is the queue's name in `apalis.jobs.job_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    MintReading,
    SweepUnminted,
    TriggerBatch,
}

impl JobKind {
    pub const ALL: [JobKind; 3] = [
        JobKind::MintReading,
        JobKind::SweepUnminted,
        JobKind::TriggerBatch,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::MintReading => "MintReading",
            JobKind::SweepUnminted => "SweepUnminted",
            JobKind::TriggerBatch => "TriggerBatch",
        }
    }
}

/// A job to be enqueued. The key makes it single: while a job with that key waits or runs, another is not added.
#[derive(Clone, Debug)]
pub struct Job {
    kind: JobKind,
    key: String,
    arguments: Vec<u8>,
    /// `None`: now.
    run_at: Option<DateTime<Utc>>,
}

impl Job {
    /// "Look at this reading": at least once, the ledger decides.
    pub fn mint_reading(reading_id: Uuid, run_at: Option<DateTime<Utc>>) -> Job {
        Job {
            kind: JobKind::MintReading,
            key: reading_id.to_string(),
            arguments: json!({ "reading_id": reading_id }).to_string().into_bytes(),
            run_at,
        }
    }

    /// The same, at once and beside whatever job the reading has: `cause` names why, and comes once. That job may be
    /// running this moment, or wait for a backoff that does not count any more; the ledger takes the reading once.
    pub fn mint_reading_because(reading_id: Uuid, cause: &str) -> Job {
        Job {
            key: format!("{reading_id}:{cause}"),
            ..Job::mint_reading(reading_id, None)
        }
    }

    /// One sweep for one tick of the clock, however many processes ask for it; or for another cause that comes once.
    pub fn sweep(tick: &str) -> Job {
        Job {
            kind: JobKind::SweepUnminted,
            key: format!("sweep:{tick}"),
            arguments: json!({ "tick": tick }).to_string().into_bytes(),
            run_at: None,
        }
    }
}

impl Job {
    /// The sweep of a tick goes on with a new job: each run of a job is short.
    pub fn sweep_on(tick: &str, batch: Uuid, slice: i32) -> Job {
        Job {
            key: format!("sweep:{batch}:{slice}"),
            ..Job::sweep(tick)
        }
    }

    /// An admin's batch, by its present slice: who hands it on to the next one enqueues that one's job.
    pub fn trigger_batch(batch: Uuid, slice: i32) -> Job {
        Job {
            kind: JobKind::TriggerBatch,
            key: format!("{batch}:{slice}"),
            arguments: json!({ "batch_id": batch }).to_string().into_bytes(),
            run_at: None,
        }
    }
}

/// How often the queue fetches one job again before it stays `Failed`: readings count their own attempts, so this only
/// bounds a job whose handler keeps dying. The sweep picks up what is left.
const MAX_JOB_RUNS: i32 = 25;

/// Enqueues jobs in the caller's transaction. A finished job with the same key is woken again, since finished rows keep
/// their key; a live one is left alone. The caller ends the transaction with [`notify`](super::notify).
pub async fn enqueue(transaction: &mut PgConnection, jobs: &[Job]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = jobs.iter().map(|_| Ulid::generate().to_string()).collect();
    let kinds: Vec<&str> = jobs.iter().map(|job| job.kind.as_str()).collect();
    let arguments: Vec<&[u8]> = jobs.iter().map(|job| job.arguments.as_slice()).collect();
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
         -- The arguments too: the row may have died of unreadable ones.
         SET status = 'Pending', job = EXCLUDED.job, run_at = EXCLUDED.run_at, attempts = 0,
             lock_by = NULL, lock_at = NULL, done_at = NULL
         WHERE jobs.status IN ('Done', 'Failed', 'Killed')",
    )
    .bind(ids)
    .bind(kinds)
    .bind(arguments)
    .bind(run_ats)
    .bind(keys)
    .bind(MAX_JOB_RUNS)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Jobs woken in one transaction: bounds how long their rows are locked.
const WOKEN_AT_ONCE: i64 = 2_000;

/// Makes the jobs due now that were put off although nothing is wrong with their readings: what kept them is over. A reading
/// whose own backoff is not over keeps its time. Bounded steps, so that workers begin with the first ones at once; gives the
/// number of jobs.
pub async fn wake_postponed(pool: &PgPool) -> sqlx::Result<u64> {
    let mut woken = 0;
    loop {
        let mut transaction = pool.begin().await?;
        let step = sqlx::query(
            "UPDATE apalis.jobs AS job
             SET status = 'Pending', attempts = 0, run_at = now(), lock_by = NULL, lock_at = NULL, done_at = NULL
             WHERE job.id IN (
                 SELECT postponed.id
                 FROM apalis.jobs AS postponed
                 JOIN readings AS reading ON reading.id::TEXT = postponed.idempotency_key
                 WHERE postponed.job_type = 'MintReading'
                   -- A job that was put off has failed for the queue; one that has failed for good was put off too often.
                   AND postponed.status = 'Failed'
                   AND reading.state = 'pending'
                   AND reading.next_attempt_at <= now()
                 LIMIT $1
                 -- Another process may be waking them too.
                 FOR UPDATE OF postponed SKIP LOCKED
             )",
        )
        .bind(WOKEN_AT_ONCE)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if step > 0 {
            super::notify(&mut transaction, super::Topic::OutboxAndJobs).await?;
        }
        transaction.commit().await?;
        woken += step;
        if step < WOKEN_AT_ONCE as u64 {
            return Ok(woken);
        }
    }
}
