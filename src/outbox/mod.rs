//! Writes events and jobs in the caller's transaction; no other code inserts into `outbox` or `apalis.jobs`.
//!
//! Invariant: the events and the jobs that a transaction writes commit with it or not at all.
//! Writers never number events, so no writer waits for another; the feed's sequencer numbers committed events.
//!
//! A transaction ends with one [`notify`]. NOTIFY takes a global lock at commit, so it is called once per batch, never per row.
//!
//! | file | what it does |
//! |---|---|
//! | `event` | builds events and writes them |
//! | `job`, `jobs/` | writes jobs; the kinds of job, one file each |
//! | `wake` | wakes the tasks that wait for committed work |
//! | `listener` | keeps the connection that listens for notifications |

mod event;
mod job;
mod jobs;
mod listener;
mod wake;

pub use event::{Event, EventFields, EventType, publish};
pub use job::{Job, NewJob, enqueue, wake_deferred};
pub use jobs::{MintReading, SweepUnminted, TriggerBatch};
pub use wake::{NOTIFY_CHANNEL, Topic, Wake, WakeUps, notify};
