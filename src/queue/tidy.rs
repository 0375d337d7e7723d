//! Cleans up after each slice of a sweep.

use chrono::{TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::handler_context::QueueContext;
use super::prune::prune_finished_jobs;
use crate::admin::batches;
use crate::db::within;
use crate::readings;
use crate::telemetry::traces;

/// Longer than all retries of a reading together take. Most traces are complete, and deleted, within seconds.
const TRACE_AGE_MAX: TimeDelta = TimeDelta::days(2);

/// Deletes old jobs, batches, overlap guards and traces, none of which anything that can still arrive needs, and enqueues jobs
/// for batches that lost theirs. Each step has an equal share of the time that is left until `until`, and a step that fails
/// does not keep the others from running.
pub(super) async fn tidy(context: &QueueContext, until: Instant) {
    let pool = &context.pool;
    let traces_before = readings::first_id_at(Utc::now() - TRACE_AGE_MAX);
    let steps: [(&str, BoxFuture<'_, sqlx::Result<u64>>); 5] = [
        ("stranded batches", batches::requeue_stranded(pool).boxed()),
        ("finished jobs", prune_finished_jobs(pool).boxed()),
        ("old batches", batches::prune(pool).boxed()),
        (
            "overlap guards",
            readings::prune_metered_intervals(pool, context.reading_max_age).boxed(),
        ),
        ("traces", traces::prune(pool, traces_before).boxed()),
    ];
    let mut steps_left: u32 = 5;
    for (step, work) in steps {
        let share = until.saturating_duration_since(Instant::now()) / steps_left.max(1);
        steps_left = steps_left.saturating_sub(1);
        if let Err(error) = within(share, work).await {
            tracing::warn!(step, %error, "tidying failed; the next slice of a sweep tries again");
        }
    }
}
