//! Steps on a reading's way that are told when they are over: which trace a reading has is in the database, and no step
//! waits to learn it.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanBuilder, SpanKind};
use opentelemetry::{KeyValue, Value};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::provider::steps;
use super::queue::count;
use super::span::attributes::READING_ID;
use super::{span, store};

/// Steps that may wait to be told; one more is dropped.
pub(super) const STEPS_WAITING_MAX: usize = 16_384;
/// Steps told after one look into the database.
const STEPS_AT_ONCE: usize = 1_000;
/// Of one look; what it does not answer is not told.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// What was done about a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    JobRun,
    Confirmation,
    /// The last one: the trace is complete.
    Finalization,
}

impl StepKind {
    fn name(self) -> &'static str {
        match self {
            StepKind::JobRun => "mint reading",
            StepKind::Confirmation => "confirm transaction",
            StepKind::Finalization => "finalize transaction",
        }
    }

    fn span_kind(self) -> SpanKind {
        match self {
            StepKind::JobRun => SpanKind::Consumer,
            StepKind::Confirmation | StepKind::Finalization => SpanKind::Internal,
        }
    }
}

/// A step that is over.
#[derive(Debug)]
pub struct Step {
    kind: StepKind,
    reading: Uuid,
    begun: SystemTime,
    ended: SystemTime,
    attributes: Vec<KeyValue>,
}

impl Step {
    /// It is over now. It may have begun by another host's clock: it never ends before it began.
    pub fn over(kind: StepKind, reading: Uuid, begun: impl Into<SystemTime>) -> Step {
        let begun = begun.into();
        Step {
            kind,
            reading,
            begun,
            ended: SystemTime::now().max(begun),
            attributes: vec![KeyValue::new(READING_ID, reading.to_string())],
        }
    }

    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Step {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Waits for nobody, and does nothing while no traces are exported.
    pub fn tell(self) {
        if let Some(steps) = steps()
            && steps.try_send(self).is_err()
        {
            count("dropped", 1);
        }
    }
}

/// Tells steps until told to stop, and then those that wait.
pub(super) async fn tell_all(
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
                tell_batch(&pool, std::mem::take(&mut batch)).await;
            }
        }
    }
}

async fn tell_batch(pool: &PgPool, batch: Vec<Step>) {
    let readings: Vec<Uuid> = batch.iter().map(|step| step.reading).collect();
    let Ok(Ok(traces)) = timeout(LOOK_LIMIT, store::find(pool, &readings)).await else {
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
        span::tell(builder, context, step.ended);
    }
    if complete.is_empty() {
        return;
    }
    // What stays behind is pruned.
    if let Ok(Err(error)) = timeout(LOOK_LIMIT, store::forget(pool, &complete)).await {
        tracing::debug!(%error, "traces that are complete stay stored for now");
    }
}
