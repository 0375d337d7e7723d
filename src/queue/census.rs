//! Which processes there are, for the status page, and whether any of them runs jobs, for health.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::process::LOCK_CLASS;
use crate::telemetry::Health;

/// A process that entered itself and has not been found dead yet.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ProcessView {
    /// Names of its queue workers begin with this.
    pub worker_prefix: String,
    /// `all`, `api` or `worker`.
    pub role: String,
    /// On its own host.
    pub pid: i32,
    pub started_at: DateTime<Utc>,
    /// Whether it holds its lock: one that does not is dead or stands still.
    pub alive: bool,
}

impl ProcessView {
    /// Whether it runs jobs of the queue now.
    pub fn is_worker_alive(&self) -> bool {
        self.alive && matches!(self.role.as_str(), "all" | "worker")
    }
}

/// All of them, the oldest first.
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
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So often in a row nobody was there: a process that starts takes its lock a moment after it entered itself.
const LOOKS_WITHOUT: u32 = 3;

/// Tells health whether any process runs jobs, until told to stop. While the database does not answer the last word stays.
pub async fn watch_workers(pool: PgPool, health: Health, stop: CancellationToken) {
    health.ok(HEALTH_PART);
    let mut without = 0;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let looking = timeout(LOOK_EVERY, processes(&pool));
        let Some(Ok(Ok(found))) = stop.run_until_cancelled(looking).await else {
            continue;
        };
        if found.iter().any(ProcessView::is_worker_alive) {
            without = 0;
            health.ok(HEALTH_PART);
            continue;
        }
        without += 1;
        if without >= LOOKS_WITHOUT {
            health.degraded(
                HEALTH_PART,
                "no process runs jobs: readings are accepted and wait; start `gridtokenx serve` or `serve --role worker`",
            );
        }
    }
}
