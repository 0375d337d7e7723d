//! Name, period and limit of a task.

use std::time::Duration;

/// Name, period and limit of a task, as the status page lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub name: &'static str,
    /// From the start of one run to the start of the next, unless a wake-up or [`Periodic::pause`](super::Periodic::pause)
    /// changes it.
    pub every: Duration,
    /// Of one run. `None`: each of its steps has its own limit.
    pub limit: Option<Duration>,
}

impl Timing {
    pub const fn new(name: &'static str, every: Duration) -> Timing {
        Timing {
            name,
            every,
            limit: None,
        }
    }

    pub const fn with_limit(self, limit: Duration) -> Timing {
        Timing {
            limit: Some(limit),
            ..self
        }
    }
}
