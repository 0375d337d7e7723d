//! The admin API, one file per resource. Every handler takes [`AdminOnly`](super::auth::authenticated::AdminOnly).
//!
//! | file | what it does |
//! |---|---|
//! | `status`, `chain_status` | the state of minting, of the chain and of the fee payer |
//! | `batches`, `trigger` | the progress of sweeps and triggers; triggers a batch |
//! | `auto_mint`, `log_level` | changes what admins may change at run time |
//! | `reading_retry`, `transactions` | retries a reading, resolves a quarantined transaction |
//! | `log` | what admins did |
//! | `router` | all of their routes |

mod auto_mint;
mod batches;
mod chain_status;
mod history_scan;
mod log;
mod log_level;
mod reading_retry;
pub(super) mod router;
mod status;
mod transactions;
pub(super) mod trigger;
