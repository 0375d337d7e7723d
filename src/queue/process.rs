//! Which processes are alive, told by Postgres itself.
//!
//! Each process holds a session advisory lock named after its number. A lock that anybody can take belongs to a process
//! that is gone, and its jobs are handed back within seconds, whatever clocks and heartbeats say. The server ends a session
//! that says nothing for [`IDLE_LIMIT`], so a process that stands still loses its lock too. When it wakes up it enters
//! itself again: its jobs may run twice then, which the ledger bears.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::config::ProcessRole;
use crate::holder::within;

/// First key of the advisory locks ("grid" in ASCII, made positive); the second is the process' number.
pub(super) const LOCK_CLASS: i32 = 1_735_680_884;
/// How often the lock's connection is tried, and dead processes are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The server ends a session that says nothing for so long.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// With the pause before it, still below [`IDLE_LIMIT`].
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Opening the lock's connection and taking the lock.
const ENTER_LIMIT: Duration = Duration::from_secs(5);

/// Why this process could not enter itself.
#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("this process could not be registered in the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// This process' entry and its lock.
#[derive(Clone, Debug)]
pub struct ProcessLock {
    number: i32,
    worker_prefix: String,
    role: ProcessRole,
    /// Name of the worker that runs now, by kind.
    workers: Arc<Mutex<HashMap<&'static str, String>>>,
    /// Workers that were ever started here.
    workers_started: Arc<AtomicUsize>,
}

impl ProcessLock {
    /// Enters this process under a name that was never used before.
    pub async fn enter(pool: &PgPool, role: ProcessRole) -> Result<ProcessLock, ProcessError> {
        let worker_prefix = format!("gridtokenx-{:016x}", rand::rng().random::<u64>());
        let number: i64 = sqlx::query_scalar(
            "INSERT INTO processes (worker_prefix, pid, role)
             VALUES ($1, $2, $3)
             RETURNING number",
        )
        .bind(&worker_prefix)
        .bind(std::process::id() as i32)
        .bind(role.as_str())
        .fetch_one(pool)
        .await?;
        Ok(ProcessLock {
            number: number as i32,
            worker_prefix,
            role,
            workers: Arc::default(),
            workers_started: Arc::default(),
        })
    }

    /// What tells this process from all others.
    pub fn name(&self) -> &str {
        &self.worker_prefix
    }

    /// The name of a worker that starts: never used before, in this process or another. What an earlier worker of its kind
    /// had claimed is handed back from now on.
    pub fn worker_name(&self, kind: &'static str) -> String {
        let start = self.workers_started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{kind}-{start}", self.worker_prefix);
        self.workers().insert(kind, name.clone());
        name
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<&'static str, String>> {
        // Only whole names are put in: a panic elsewhere leaves nothing half done.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lock on a connection of its own, opened again when it breaks, and hands back the jobs of dead processes, in
    /// transactions of `limit` each.
    pub async fn keep(
        self,
        options: PgConnectOptions,
        pool: PgPool,
        limit: Duration,
        stop: CancellationToken,
    ) {
        // Side by side: a pool that is used up for a while must not cost the lock.
        let kept =
            async { tokio::join!(self.keep_lock(&options), self.keep_looking(&pool, limit)) };
        stop.run_until_cancelled(kept).await;
    }

    async fn keep_lock(&self, options: &PgConnectOptions) {
        let mut connection: Option<PgConnection> = None;
        loop {
            connection = match self.hold(connection.take(), options).await {
                Ok(held) => Some(held),
                Err(error) => {
                    tracing::warn!(%error, "the connection that marks this process alive broke; opening it again");
                    None
                }
            };
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn keep_looking(&self, pool: &PgPool, limit: Duration) {
        loop {
            let handed_back = self.hand_back_jobs_of_earlier_workers(pool);
            if let Err(error) = within(limit, handed_back).await {
                tracing::debug!(%error, "could not look for jobs of earlier workers");
            }
            // A process at a time: those that were done stay done.
            if let Err(error) = within(limit, self.hand_back_jobs_of_the_dead(pool)).await {
                tracing::debug!(%error, "could not look for dead processes");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn hold(
        &self,
        connection: Option<PgConnection>,
        options: &PgConnectOptions,
    ) -> sqlx::Result<PgConnection> {
        if let Some(mut connection) = connection {
            tokio::time::timeout(PING_LIMIT, connection.ping())
                .await
                .map_err(|_| sqlx::Error::PoolTimedOut)??;
            return Ok(connection);
        }
        tokio::time::timeout(ENTER_LIMIT, self.lock(options))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    async fn lock(&self, options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
        let mut connection = options.connect().await?;
        connection
            .execute(sqlx::AssertSqlSafe(format!(
                "SET idle_session_timeout = {}",
                IDLE_LIMIT.as_millis()
            )))
            .await?;
        sqlx::query("SELECT pg_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(self.number)
            .execute(&mut connection)
            .await?;
        // Whoever took this process for dead has forgotten it; with the lock, nobody does so from here on.
        sqlx::query(
            "INSERT INTO processes (number, worker_prefix, pid, role)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (number) DO NOTHING",
        )
        .bind(i64::from(self.number))
        .bind(&self.worker_prefix)
        .bind(std::process::id() as i32)
        .bind(self.role.as_str())
        .execute(&mut connection)
        .await?;
        Ok(connection)
    }

    /// A worker that ended with an error (the database went away) left its jobs claimed under its name. Its handlers ended
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

    /// Hands back what processes without a lock had claimed, and forgets them.
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
            let mut transaction = pool.begin().await?;
            let is_dead: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
                .bind(LOCK_CLASS)
                .bind(number as i32)
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

    /// Hands back what this process' workers still hold, at the end of a drain. Returns the number of jobs.
    pub async fn leave(&self, pool: &PgPool) -> sqlx::Result<u64> {
        let mut transaction = pool.begin().await?;
        let jobs = release_jobs(&mut transaction, &self.worker_prefix).await?;
        sqlx::query("DELETE FROM processes WHERE number = $1")
            .bind(i64::from(self.number))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(jobs)
    }
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
