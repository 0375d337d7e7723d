//! The queue: apalis on Postgres, and the jobs that it runs.
//!
//! A job only says "look at this reading", "look for stragglers", or "go on with this batch": it may run twice, late, or never, and the ledger still
//! pays every reading once. What a job leaves undone the sweep finds.
//!
//! | file | what it does |
//! |---|---|
//! | `workers` | builds the workers, restarts them, drains them |
//! | `wake_up` | when a worker looks for jobs: on NOTIFY, and by a slow poll |
//! | `mint_reading`, `sweep`, `trigger_batch` | the jobs |
//! | `batch_run` | what the sweep and an admin's batch have in common |
//! | `held` | readings that the toggle or the roll-out holds back |
//! | `guarded` | time-out and panic of a handler, caught inside it |
//! | `process` | this process' advisory lock; jobs of dead processes are handed back |
//! | `prune` | finished jobs are dropped |

mod batch_run;
mod guarded;
mod held;
mod mint_reading;
mod process;
mod prune;
mod sweep;
mod trigger_batch;
mod wake_up;
mod workers;

pub use process::{ProcessError, ProcessLock};
pub use workers::{QueueContext, Workers};
