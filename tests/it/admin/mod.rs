//! What admins decide is carried out, once, and logged.

mod admin_log;
mod auto_mint;
mod batches;
mod log_level;
mod queue_console;
mod retry_and_resolve;
