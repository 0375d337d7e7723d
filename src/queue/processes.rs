//! Lists the processes of the deployment, for the status page.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::process_registration::LOCK_CLASS;

/// A process that registered itself and has not been found dead yet.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ProcessView {
    /// Names of its queue workers begin with this.
    pub worker_prefix: String,
    /// `all`, `api` or `worker`.
    pub role: String,
    /// On its own host.
    pub pid: i32,
    pub started_at: DateTime<Utc>,
    /// Whether it holds its lock: a process without its lock is dead or stopped.
    pub alive: bool,
}

impl ProcessView {
    /// Whether it runs jobs of the queue now.
    pub fn is_worker_alive(&self) -> bool {
        self.alive && matches!(self.role.as_str(), "all" | "worker")
    }
}

/// All registered processes, the oldest first.
pub async fn processes(pool: &PgPool) -> sqlx::Result<Vec<ProcessView>> {
    sqlx::query_as(
        "SELECT process.worker_prefix,
                process.role,
                process.pid,
                process.started_at,
                EXISTS (
                    SELECT
                    FROM pg_locks AS lock
                    WHERE lock.locktype = 'advisory'
                      AND lock.database = (
                          SELECT oid FROM pg_database WHERE datname = current_database()
                      )
                      AND lock.classid = $1::BIGINT::OID
                      AND lock.objid = process.number::OID
                      -- Two keys of 32 bits, not one of 64.
                      AND lock.objsubid = 2
                      AND lock.granted
                ) AS alive
         FROM processes AS process
         ORDER BY process.number",
    )
    .bind(i64::from(LOCK_CLASS))
    .fetch_all(pool)
    .await
}
