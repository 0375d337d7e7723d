//! Each accepted reading is paid exactly once, as soon as possible and within the promised cost.

mod accounts;
mod canary;
mod chain_parameters;
mod exactly_once;
mod poison;
mod priority_fees;
mod queue;
mod record_races;
mod retry;
mod runway;
mod sweep;
mod transaction_formats;
