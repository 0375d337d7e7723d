//! The exporter of this process, which all its spans and steps use.

use std::sync::OnceLock;

use opentelemetry_sdk::trace::SdkTracer;
use tokio::sync::mpsc;

use super::step::Step;

struct Installed {
    tracer: SdkTracer,
    steps: mpsc::Sender<Step>,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// Installs the exporter. Returns false when another one is installed: a process exports to one collector.
pub(super) fn install(tracer: SdkTracer, steps: mpsc::Sender<Step>) -> bool {
    INSTALLED.set(Installed { tracer, steps }).is_ok()
}

/// Whether traces are exported.
pub fn is_on() -> bool {
    INSTALLED.get().is_some()
}

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    INSTALLED.get().map(|installed| &installed.tracer)
}

pub(super) fn steps() -> Option<&'static mpsc::Sender<Step>> {
    INSTALLED.get().map(|installed| &installed.steps)
}
