//! Every action of an admin takes effect once and is logged.

mod admin_log;
mod auto_mint;
mod batches;
mod log_level;
mod queue_console;
mod retry_and_resolve;
