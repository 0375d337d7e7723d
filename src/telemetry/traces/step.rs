//! A step of a reading that has ended.

use std::time::SystemTime;

use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};
use uuid::Uuid;

use super::attributes::READING_ID;

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    JobRun,
    Confirmation,
    /// The last one: the trace is complete.
    Finalization,
}

impl StepKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            StepKind::JobRun => "mint reading",
            StepKind::Confirmation => "confirm transaction",
            StepKind::Finalization => "finalize transaction",
        }
    }

    pub(super) fn span_kind(self) -> SpanKind {
        match self {
            StepKind::JobRun => SpanKind::Consumer,
            StepKind::Confirmation | StepKind::Finalization => SpanKind::Internal,
        }
    }
}

/// A step that has ended.
#[derive(Debug)]
pub struct Step {
    pub(super) kind: StepKind,
    pub(super) reading: Uuid,
    pub(super) begun: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) attributes: Vec<KeyValue>,
}

impl Step {
    /// A step that ends now. Its beginning may come from another host's clock, so the end is never before the beginning.
    pub fn ended_now(kind: StepKind, reading: Uuid, begun: impl Into<SystemTime>) -> Step {
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
}
