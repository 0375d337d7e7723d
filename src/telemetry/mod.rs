//! Observability: metrics, health, logs and [`traces`].
//!
//! Invariant: every metric has its help text and a first value from the start ([`Metrics::install`]), so that a dashboard or an
//! alert never mistakes "missing" for "fine". No user, meter, wallet, signature, path or method of a client is ever a label:
//! labels come from the short lists in [`names`].
//!
//! | file | what it does |
//! |---|---|
//! | `names` | all metrics: names, labels and help texts |
//! | `metrics` | the recorder behind `GET /metrics` |
//! | `process`, `disk` | metrics of this process; free space on the disk of the data directory |
//! | `health` | the health that each part reports |
//! | `logs` | sets up the log |
//! | `traces/` | a trace for each reading |
//! | `boards` | tests that dashboards and rules use every metric, and none that does not exist |

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
pub use health::{Check, Health, HealthPart, Readiness, Status};
pub use logs::{LogError, init as init_logs, set_log_level};
pub use metrics::{Metrics, Stage, metric_value, observe_stage};
pub use process::update_process_metrics;
