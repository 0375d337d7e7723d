//! Registers this process in the database, and hands back the jobs of processes that are dead.
//!
//! Invariant: a registered process that is alive holds the session advisory lock whose second key is the process' number
//! ([`LockSession`]). So a lock that another process can acquire belongs to a process that has ended, and its jobs are handed back
//! within seconds, whatever clocks and heartbeats report. A process that is stopped loses its lock too; when it resumes, it
//! registers again. Its jobs may run twice then, which is harmless, because the ledger pays each reading once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config::ProcessRole;
use crate::db::{self, AdvisoryKey, LockSession, within};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// First key of the advisory locks ("grid" in ASCII, made positive); the second is the process' number.
pub(super) const LOCK_CLASS: i32 = 1_735_680_884;
/// Pause after the lock was lost, and between two searches for dead processes.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// For the statement that registers this process again once it has the lock.
const REGISTER_LIMIT: Duration = Duration::from_secs(5);

/// This process could not be registered.
#[derive(Debug, Error)]
pub enum RegistrationError {
    #[error("this process could not be registered in the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("this process could not be registered in the database: number {number} is used up")]
    NumbersUsedUp { number: i64 },
}

/// This process' row and its lock.
#[derive(Clone, Debug)]
pub struct ProcessRegistration {
    number: i32,
    worker_prefix: String,
    role: ProcessRole,
    /// Name of the worker that runs now, by kind.
    workers: Arc<Mutex<HashMap<&'static str, String>>>,
    /// Workers that were ever started here.
    workers_started: Arc<AtomicUsize>,
}

impl ProcessRegistration {
    /// Registers this process under a name that was never used before.
    pub async fn register(
        pool: &PgPool,
        role: ProcessRole,
    ) -> Result<ProcessRegistration, RegistrationError> {
        let worker_prefix = format!("gridtokenx-{:016x}", rand::rng().random::<u64>());
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO processes (worker_prefix, pid, role)
             VALUES ($1, $2, $3)
             RETURNING number",
        )
        .bind(&worker_prefix)
        .bind(pid())
        .bind(role.as_str())
        .fetch_one(pool)
        .await?;
        Ok(ProcessRegistration {
            number: i32::try_from(number)
                .map_err(|_| RegistrationError::NumbersUsedUp { number })?,
            worker_prefix,
            role,
            workers: Arc::default(),
            workers_started: Arc::default(),
        })
    }

    /// The name that distinguishes this process from all others.
    pub fn name(&self) -> &str {
        &self.worker_prefix
    }

    /// The name of a worker that starts: never used before, in this process or another. Jobs that an earlier worker of its kind
    /// had claimed are handed back from now on.
    pub fn worker_name(&self, kind: &'static str) -> String {
        let start = self.workers_started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{kind}-{start}", self.worker_prefix);
        self.workers().insert(kind, name.clone());
        name
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<&'static str, String>> {
        // Each insertion is complete in itself, so a panic elsewhere leaves the map valid.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lock until `stop`, and acquires it again when its session breaks.
    pub async fn keep_lock(self, options: PgConnectOptions, stop: CancellationToken) {
        let keeping = async {
            loop {
                let error = match self.lock(&options).await {
                    Ok(mut session) => session.wait_until_lost().await,
                    Err(error) => error,
                };
                tracing::warn!(%error, "the session that marks this process alive broke; opening it again");
                tokio::time::sleep(CHECK_EVERY).await;
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    async fn lock(&self, options: &PgConnectOptions) -> sqlx::Result<LockSession> {
        let mut session = LockSession::acquire(options, lock_key(self.number)).await?;
        // Another process that took this one for dead has deleted its row; none does so while this session has the lock.
        let inserted = sqlx::query(
            "INSERT INTO processes (number, worker_prefix, pid, role)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (number) DO NOTHING",
        )
        .bind(i64::from(self.number))
        .bind(&self.worker_prefix)
        .bind(pid())
        .bind(self.role.as_str())
        .execute(session.connection());
        within(REGISTER_LIMIT, inserted).await?;
        Ok(session)
    }

    /// Hands back the jobs of dead processes and of this process's earlier workers. `limit` is that of one of the two steps.
    pub fn hand_back_task(&self, pool: PgPool, limit: Duration) -> PeriodicTask {
        let hand_back = HandBack {
            process: self.clone(),
            pool,
            limit,
        };
        PeriodicTask::new(Timing::new("hand-back of jobs", CHECK_EVERY), hand_back)
    }

    /// A worker that ended with an error (the database was unavailable) left its jobs claimed under its name. Its handlers ended
    /// with it.
    async fn hand_back_jobs_of_earlier_workers(&self, pool: &PgPool) -> sqlx::Result<()> {
        let current: Vec<String> = self.workers().values().cloned().collect();
        let released = sqlx::query(
            "UPDATE apalis.jobs
             SET status = 'Pending', lock_by = NULL, lock_at = NULL
             WHERE status IN ('Queued', 'Running')
               AND lock_by IN (
                   SELECT id
                   FROM apalis.workers
                   WHERE starts_with(id, $1) AND id <> ALL($2)
               )",
        )
        .bind(&self.worker_prefix)
        .bind(current)
        .execute(pool)
        .await?
        .rows_affected();
        if released > 0 {
            tracing::info!(
                jobs = released,
                "handed back the jobs of a worker that had ended"
            );
        }
        Ok(())
    }

    /// Hands back the jobs that processes without a lock had claimed, and deletes their rows.
    async fn hand_back_jobs_of_the_dead(&self, pool: &PgPool) -> sqlx::Result<()> {
        let others: Vec<(i64, String)> = sqlx::query_as(
            "SELECT number, worker_prefix
             FROM processes
             WHERE number <> $1
               -- Younger ones may not have their lock yet.
               AND started_at < now() - INTERVAL '3 seconds'",
        )
        .bind(i64::from(self.number))
        .fetch_all(pool)
        .await?;
        for (number, worker_prefix) in others {
            let key =
                lock_key(i32::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))?);
            let mut transaction = db::begin(pool).await?;
            let is_dead: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
                .bind(key.class)
                .bind(key.object)
                .fetch_one(&mut *transaction)
                .await?;
            if !is_dead {
                continue;
            }
            let jobs = release_jobs(&mut transaction, &worker_prefix).await?;
            sqlx::query("DELETE FROM processes WHERE number = $1")
                .bind(number)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            tracing::info!(
                process = worker_prefix,
                jobs,
                "handed back the jobs of a dead process"
            );
        }
        Ok(())
    }

    /// Hands back the jobs that this process' workers still hold, at the end of a drain, and deletes its row. Returns the number
    /// of jobs.
    pub async fn deregister(&self, pool: &PgPool) -> sqlx::Result<u64> {
        let mut transaction = db::begin(pool).await?;
        let jobs = release_jobs(&mut transaction, &self.worker_prefix).await?;
        sqlx::query("DELETE FROM processes WHERE number = $1")
            .bind(i64::from(self.number))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(jobs)
    }
}

struct HandBack {
    process: ProcessRegistration,
    pool: PgPool,
    limit: Duration,
}

impl Periodic for HandBack {
    async fn run(&mut self) -> Result<(), RunError> {
        let of_earlier_workers = self.process.hand_back_jobs_of_earlier_workers(&self.pool);
        let of_earlier_workers = within(self.limit, of_earlier_workers).await;
        // Even when the first step failed. One transaction per process, so that those which are handed back stay so when a
        // later one fails.
        let of_the_dead = self.process.hand_back_jobs_of_the_dead(&self.pool);
        within(self.limit, of_the_dead).await?;
        Ok(of_earlier_workers?)
    }
}

fn lock_key(number: i32) -> AdvisoryKey {
    AdvisoryKey {
        class: LOCK_CLASS,
        object: number,
    }
}

/// Process ids of Linux are at most 2^22, so they fit the column's INTEGER.
fn pid() -> i32 {
    std::process::id().cast_signed()
}

async fn release_jobs(transaction: &mut PgConnection, worker_prefix: &str) -> sqlx::Result<u64> {
    let released = sqlx::query(
        "UPDATE apalis.jobs
         SET status = 'Pending', lock_by = NULL, lock_at = NULL
         WHERE status IN ('Queued', 'Running')
           AND lock_by IN (SELECT id FROM apalis.workers WHERE starts_with(id, $1))",
    )
    .bind(worker_prefix)
    .execute(transaction)
    .await?;
    Ok(released.rows_affected())
}
