//! What admins and operators see and change while the service runs.
//!
//! Invariant: all processes on one database follow the same stored settings. Kept by one row that each reads at start and
//! again at every change, and at least every few seconds; the configuration only fills that row at the first start.

mod backlog;
mod runway;
mod settings;

pub use backlog::{Backlog, BreakerView, QueueDepth, UnmintedReadings};
pub use runway::Runway;
pub use settings::{Settings, SettingsWatch};
