//! How the service is watched: metrics, health, logs and [`traces`].
//!
//! Invariant: what a person watches exists before it is needed. Every metric has its help text and a first value from the
//! start ([`Metrics::install`]), so that a board or an alert never mistakes "not there yet" for "fine". No user, meter,
//! wallet, signature, path or method of a client is ever a label: labels come from the short lists in [`names`].

#[cfg(test)]
mod boards;
mod disk;
mod health;
mod logs;
mod metrics;
pub mod names;
mod process;
pub mod traces;

pub use disk::watch_disk;
pub use health::{Check, Health, Readiness, Status};
pub use logs::{LogError, init as init_logs, set_log_level};
pub use metrics::{Metrics, Stage, observe_stage};
pub use process::show_process;
