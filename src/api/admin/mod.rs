//! The admin API, one file per resource. Every handler takes [`AdminOnly`](super::auth::caller::AdminOnly).
//!
//! | file | what it does |
//! |---|---|
//! | `status`, `chain` | the state of minting, of the chain and of the fee payer |
//! | `batches`, `trigger` | the progress of sweeps and triggers; triggers a batch |
//! | `settings`, `log_level` | changes what admins may change at run time |
//! | `reading_retry`, `transactions` | retries a reading, resolves a quarantined transaction |
//! | `log` | what admins did |
//! | `router` | all of their routes |

mod batches;
mod chain;
mod log;
mod log_level;
mod reading_retry;
pub(super) mod router;
mod settings;
mod status;
mod transactions;
pub(super) mod trigger;
