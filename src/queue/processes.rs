//! Lists the processes of the deployment, for the status page, and reports to health whether any of them runs jobs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::registration::LOCK_CLASS;
use crate::telemetry::Health;

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

const HEALTH_PART: &str = "workers";
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Checks in a row that must find no worker before health degrades: a process that starts acquires its lock a moment after it
/// registered itself.
const CHECKS_WITHOUT_WORKER: u32 = 3;

/// Reports to health whether any process runs jobs, until `stop`. While the database does not answer, the last report stands.
pub async fn watch_workers(pool: PgPool, health: Health, stop: CancellationToken) {
    health.ok(HEALTH_PART);
    let mut checks_without_worker = 0;
    let mut ticks = interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let listing = timeout(CHECK_EVERY, processes(&pool));
        let Some(Ok(Ok(found))) = stop.run_until_cancelled(listing).await else {
            continue;
        };
        if found.iter().any(ProcessView::is_worker_alive) {
            checks_without_worker = 0;
            health.ok(HEALTH_PART);
            continue;
        }
        checks_without_worker += 1;
        if checks_without_worker >= CHECKS_WITHOUT_WORKER {
            health.degraded(
                HEALTH_PART,
                "no process runs jobs: readings are accepted and wait; start `gridtokenx serve` or `serve --role worker`",
            );
        }
    }
}
