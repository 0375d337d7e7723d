//! Exports steps of a reading as spans after they have ended: the trace of a reading is stored in the database, and no step waits
//! for that query.

use std::time::Duration;

use opentelemetry::trace::SpanBuilder;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::installed::steps;
use super::queue::count;
use super::step::{Step, StepKind};
use super::{span, traces_table};

/// Steps that may wait for their export; further ones are dropped.
pub(super) const STEPS_WAITING_MAX: usize = 16_384;
/// Steps exported after one query of the database.
const STEPS_AT_ONCE: usize = 1_000;
/// Limit of one query. Steps whose trace it does not return in time are dropped.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

impl Step {
    /// Queues the step for export without waiting. Does nothing while no traces are exported.
    pub fn export(self) {
        if let Some(steps) = steps()
            && steps.try_send(self).is_err()
        {
            count("dropped", 1);
        }
    }
}

/// Exports steps until `stop` is cancelled, and then those that still wait.
pub(super) async fn export_all(
    pool: PgPool,
    mut steps: mpsc::Receiver<Step>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !steps.is_closed() => steps.close(),
            taken = steps.recv_many(&mut batch, STEPS_AT_ONCE) => {
                if taken == 0 {
                    return;
                }
                export_batch(&pool, std::mem::take(&mut batch)).await;
            }
        }
    }
}

async fn export_batch(pool: &PgPool, batch: Vec<Step>) {
    let readings: Vec<Uuid> = batch.iter().map(|step| step.reading).collect();
    let Ok(Ok(traces)) = timeout(QUERY_LIMIT, traces_table::find(pool, &readings)).await else {
        count("dropped", batch.len());
        return;
    };
    let mut complete = Vec::new();
    for step in batch {
        let Some(context) = traces.get(&step.reading) else {
            continue;
        };
        if step.kind == StepKind::Finalization {
            complete.push(step.reading);
        }
        let builder = SpanBuilder::from_name(step.kind.name())
            .with_kind(step.kind.span_kind())
            .with_start_time(step.begun)
            .with_attributes(step.attributes);
        span::export_ended(builder, context, step.ended);
    }
    if complete.is_empty() {
        return;
    }
    // Rows that stay behind are pruned later.
    if let Ok(Err(error)) = timeout(QUERY_LIMIT, traces_table::delete(pool, &complete)).await {
        tracing::debug!(%error, "contexts of complete traces could not be deleted; they are pruned later");
    }
}
