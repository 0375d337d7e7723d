//! Logs a failure of a loop when it begins and when it ends, not at every round: for the loops that are not
//! [`periodic`](crate::periodic).

use crate::ledger::error::LedgerError;

/// The last outcome of one loop.
pub struct LogOnChange {
    task: &'static str,
    is_failing: bool,
}

impl LogOnChange {
    pub fn new(task: &'static str) -> LogOnChange {
        LogOnChange {
            task,
            is_failing: false,
        }
    }

    pub fn note(&mut self, outcome: Result<(), LedgerError>) {
        match outcome {
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(task = self.task, %error, "resolver task failed");
            }
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!(task = self.task, "resolver task recovered");
            }
            _ => {}
        }
    }
}
