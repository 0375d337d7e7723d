//! Admin actions and the figures that admins see.
//!
//! Invariant: all processes on one database follow the same stored settings. Kept by one row that each batch of the minter
//! and each sweep reads, and of which no process keeps a copy; the configuration only fills that row at the first start.
//!
//! Invariant: an admin's action and its entry in the admin log commit together or not at all.
//!
//! | file | what it does |
//! |---|---|
//! | `auto_mint_settings`, `auto_mint` | the stored settings; the auto-mint toggle and the roll-out |
//! | `batches/` | runs of the sweep and triggers of admins |
//! | `retry` | retries a reading |
//! | `resolve`, `adopt` | resolves a quarantined transaction; adopts or books a landed mint that the ledger lacks |
//! | `log_level` | a temporary log level for all processes |
//! | `backlog`, `waiting_readings`, `runway` | the waiting work, for metrics and the status page; how long the fee payer's balance lasts |
//! | `error` | the reasons for which an action is refused |

mod adopt;
mod auto_mint;
mod auto_mint_settings;
mod backlog;
pub mod batches;
mod error;
mod log_level;
mod resolve;
mod retry;
mod runway;
mod waiting_readings;

pub use adopt::{AdoptionError, adopt_mint, book_foreign_mint};
pub use auto_mint::{SettingsChange, announce_hold, set_auto_mint_percentage, toggle_auto_mint};
pub use auto_mint_settings::{AutoMintSettings, StoredSettings};
pub use backlog::{Backlog, LedgerBreakerState, LedgerBreakerView, QueueDepth};
pub use error::{AdminError, REASON_CHARACTERS_MAX, ReasonError};
pub use log_level::{
    LOG_LEVEL_CHARACTERS_MAX, LOG_LEVEL_MINUTES_MAX, LogLevel, is_log_level, log_level_task,
    set_log_level,
};
pub use resolve::{Resolution, resolve_transaction};
pub use retry::{RetryRequest, retry_reading};
pub use runway::Runway;
pub use waiting_readings::WaitingReadings;
