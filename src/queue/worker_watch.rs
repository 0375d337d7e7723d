//! Reports to health whether any process of the deployment runs jobs.

use std::time::Duration;

use sqlx::PgPool;

use super::processes::{ProcessView, processes};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::{Health, HealthPart};

const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Checks in a row that must find no worker before health degrades: a process that starts acquires its lock a moment after it
/// registered itself.
const CHECKS_WITHOUT_WORKER: u32 = 3;

struct WorkerWatch {
    pool: PgPool,
    health: Health,
    checks_without_worker: u32,
}

/// Checks whether any process runs jobs. While the database does not answer, the last report stands.
pub fn worker_watch(pool: PgPool, health: Health) -> PeriodicTask {
    health.ok(HealthPart::Workers);
    let watch = WorkerWatch {
        pool,
        health,
        checks_without_worker: 0,
    };
    let timing = Timing::new("worker watch", CHECK_EVERY).with_limit(CHECK_EVERY);
    PeriodicTask::new(timing, watch)
}

impl Periodic for WorkerWatch {
    async fn run(&mut self) -> Result<(), RunError> {
        let found = processes(&self.pool).await?;
        if found.iter().any(ProcessView::is_worker_alive) {
            self.checks_without_worker = 0;
            self.health.ok(HealthPart::Workers);
            return Ok(());
        }
        self.checks_without_worker = self.checks_without_worker.saturating_add(1);
        if self.checks_without_worker >= CHECKS_WITHOUT_WORKER {
            self.health.degraded(
                HealthPart::Workers,
                "no process runs jobs: readings are accepted and wait; start `gridtokenx serve` or `serve --role worker`",
            );
        }
        Ok(())
    }
}
