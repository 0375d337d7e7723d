//! Tasks that run on a period, as data: a name, a period, the limit of one run, and what to run.
//!
//! Invariant: a task runs until it is stopped, whatever a single run does. A run that exceeds its limit is cancelled and a run
//! that panics is caught; the next run follows. Runs of one task never overlap, and missed ticks are not made up. A loop outside
//! [`PeriodicTask::run`] has to ensure all of this itself. The exception is a task of a leader: its panic unwinds, so that the
//! lock passes to a process that may not share the defect.
//!
//! Invariant: what runs is listed. Kept by [`PeriodicTask::run`], which takes the [`TaskList`] of the process, adds the task to
//! it and counts its runs there. The status page shows the list.
//!
//! The log has a line when runs begin to fail and one when they succeed again, never one for each run.
//!
//! A loop that waits for input rather than for time does not belong here: the connection that listens for notifications, the
//! re-sends, the steps of traces, and everything that serves one client. Nor does one that ends: the checks of the chain after a
//! start without an endpoint.
//!
//! | file | what it does |
//! |---|---|
//! | `timing` | name, period and limit of a task |
//! | `task_list` | the tasks of a process, and how often each has run |
//! | `task` | runs a task |

mod task;
mod task_list;
mod timing;

pub use task::{Periodic, PeriodicTask, RunError};
pub use task_list::{ListedTask, RunCounter, TaskList};
pub use timing::Timing;
