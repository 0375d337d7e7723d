//! Observability: metrics, health, logs and [`traces`].
//!
//! Invariant: every metric has its help text and a first value from the start ([`Metrics::install`]), so that a dashboard or an
//! alert never mistakes "missing" for "fine". No user, meter, wallet, signature, path or method of a client is ever a label:
//! labels come from the short lists in [`names`].

#[cfg(test)]
mod boards;
mod disk;
mod health;
mod logs;
mod metrics;
pub mod names;
mod process;
pub mod traces;

pub use disk::disk_watch;
pub use health::{Check, Health, Readiness, Status};
pub use logs::{LogError, init as init_logs, set_log_level};
pub use metrics::{Metrics, Stage, metric_value, observe_stage};
pub use process::update_process_metrics;
