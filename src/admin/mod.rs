//! What admins and operators see and change while the service runs.
//!
//! Invariant: all processes on one database follow the same stored settings. Kept by one row that each reads at start and
//! again at every change, and at least every few seconds; the configuration only fills that row at the first start.

mod action;
mod backlog;
pub mod batches;
pub mod log;
mod log_entry;
mod settings;

pub use action::AdminAction;
pub use backlog::{Backlog, BreakerView, QueueDepth, UnmintedReadings};
pub use log_entry::{BEFORE_THE_FIRST, LogEntry, LogNumber, hex};
pub use settings::{Settings, SettingsWatch};
