//! The queue: apalis on Postgres, and the jobs that it runs.
//!
//! A job only says "look at this reading", "look for stragglers", or "go on with this batch": it may run twice, late, or never, and the ledger still
//! pays every reading once. What a job leaves undone the sweep finds.
//!
//! | file | what it does |
//! |---|---|
//! | `workers` | builds the workers, restarts them, drains them |
//! | `source` | where a worker's jobs come from |
//! | `wake_up` | when a worker looks for jobs: on NOTIFY, and by a slow poll |
//! | `payload` | what a job carries; nothing in it stops a worker |
//! | `mint_reading`, `sweep`, `trigger_batch` | the jobs |
//! | `batch_run` | what the sweep and an admin's batch have in common |
//! | `guarded` | time-out and panic of a handler, caught inside it |
//! | `job_end` | the one line that a job leaves in the log |
//! | `dead` | jobs that can never be run |
//! | `registration` | registers this process under an advisory lock; hands back the jobs of dead processes |
//! | `heartbeat` | detects a worker that is stuck |
//! | `processes` | lists the processes of the deployment |
//! | `tally` | how many jobs this process has finished |
//! | `prune` | finished jobs are dropped |

mod batch_run;
mod dead;
mod guarded;
mod heartbeat;
mod job_end;
mod mint_reading;
mod payload;
mod processes;
mod prune;
mod registration;
mod source;
mod sweep;
mod tally;
mod trigger_batch;
mod wake_up;
mod workers;

pub use processes::{ProcessView, processes, watch_workers};
pub use registration::{ProcessRegistration, RegistrationError};
pub use tally::JobTally;
pub use workers::{QueueContext, Workers};
