//! The queue: apalis on Postgres, and a handler for each kind of job.
//!
//! A job is a request to act on one reading, to sweep, or to run the next slice of a batch. It may run twice, late, or never,
//! and the ledger still pays every reading once; readings whose job is lost are found by the sweep.
//!
//! A job's payload is defined beside its enqueuers, in `outbox/jobs/`. This room is the other side: one handler for each kind,
//! and everything that all kinds share.
//!
//! | file | what it does |
//! |---|---|
//! | `kinds` | the list of the kinds of job |
//! | `handle` | runs a job's handler, and logs, defers or ends the job by what the handler returns |
//! | `mint_reading`, `sweep_unminted`, `trigger_batch` | the handlers |
//! | `batch_slice` | runs one slice of a batch, for sweeps and for triggers; `claim_pages` and `hand_in` are its steps |
//! | `deferral` | decides how long a job is deferred |
//! | `dead_letter` | jobs that can never run |
//! | `job_log` | the one line that a job leaves in the log |
//! | `sweep_clock` | enqueues a sweep on each tick |
//! | `tidy` | cleans up after each slice of a sweep |
//! | `prune` | deletes finished jobs |
//! | `handler_context` | dependencies and limits of the handlers, and how long they wait for the circuit breaker |
//! | `run_limited` | time-out and panic of a handler, caught inside it |
//! | `payload` | decodes payloads so that none can stop a worker |
//! | `source`, `wake_up` | gives a worker its jobs; decides when it polls for them |
//! | `worker` | builds the worker of one kind |
//! | `workers` | builds the workers, restarts them, drains them |
//! | `process_registration` | registers this process under an advisory lock; hands back the jobs of dead processes |
//! | `heartbeat` | detects a worker that is stuck |
//! | `processes` | lists the processes of the deployment |
//! | `worker_watch` | reports to health whether any process runs jobs |
//! | `finished_jobs` | counts the jobs that this process has finished |

mod batch_slice;
mod claim_pages;
mod dead_letter;
mod deferral;
mod finished_jobs;
mod hand_in;
mod handle;
mod handler_context;
mod heartbeat;
mod job_log;
mod kinds;
mod mint_reading;
mod payload;
mod process_registration;
mod processes;
mod prune;
mod run_limited;
mod source;
mod sweep_clock;
mod sweep_unminted;
mod tidy;
mod trigger_batch;
mod wake_up;
mod worker;
mod worker_watch;
mod workers;

pub use finished_jobs::FinishedJobs;
pub use handler_context::QueueContext;
pub use kinds::job_names;
pub use process_registration::{ProcessRegistration, RegistrationError};
pub use processes::{ProcessView, processes};
pub use worker_watch::worker_watch;
pub use workers::Workers;
