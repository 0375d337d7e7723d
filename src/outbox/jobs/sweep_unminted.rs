//! `SweepUnminted`: find readings that no job is going to mint, and mint them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::job::{Job, NewJob};

/// A request for one slice of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepUnminted {
    /// The moment at which the sweep was due, seconds since 1970; or the cause of a sweep that was requested between ticks.
    pub tick: String,
}

impl Job for SweepUnminted {
    const NAME: &'static str = "SweepUnminted";
}

impl SweepUnminted {
    /// The sweep of one tick of the clock. Its key is the tick, so it runs once however many processes enqueue it.
    pub fn at_tick(secs_since_1970: u64) -> NewJob {
        SweepUnminted::of(secs_since_1970.to_string())
    }

    /// A sweep between ticks, for a cause that occurs once.
    pub fn because(cause: &str) -> NewJob {
        SweepUnminted::of(cause.to_owned())
    }

    /// The job that continues this sweep with the next slice of its batch: each run of a job is short.
    pub fn next_slice(&self, batch: Uuid, slice: i32) -> NewJob {
        NewJob::new(self, format!("sweep:{batch}:{slice}"))
    }

    /// The job that tries the same sweep later: it has its own key, so it waits however often that is, and its run is a new one.
    pub fn later(&self, at: DateTime<Utc>) -> NewJob {
        let key = format!("sweep:{}:{}", self.tick, at.timestamp_micros());
        NewJob::new(self, key).due(Some(at))
    }

    /// The moment at which the sweep was due, seconds since 1970. `None` for a sweep that was requested between ticks.
    pub fn due_secs(&self) -> Option<i64> {
        self.tick.parse().ok()
    }

    fn of(tick: String) -> NewJob {
        let key = format!("sweep:{tick}");
        NewJob::new(&SweepUnminted { tick }, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_do_not_change() {
        let tick = SweepUnminted::at_tick(1_764_000_000);
        assert_eq!(tick.job_type(), "SweepUnminted");
        assert_eq!(tick.key(), "sweep:1764000000");
        assert_eq!(tick.payload(), br#"{"tick":"1764000000"}"#);
        let requested = SweepUnminted::because("admin-log-7");
        assert_eq!(requested.key(), "sweep:admin-log-7");
        assert_eq!(requested.payload(), br#"{"tick":"admin-log-7"}"#);
        let sweep = SweepUnminted {
            tick: "1764000000".to_owned(),
        };
        let later = sweep.later("2026-11-25T04:00:00Z".parse().unwrap());
        assert_eq!(later.key(), "sweep:1764000000:1795579200000000");
        assert_eq!(later.payload(), tick.payload());
        let next = sweep.next_slice(Uuid::from_u128(7), 2);
        assert_eq!(next.key(), "sweep:00000000-0000-0000-0000-000000000007:2");
        assert_eq!(next.payload(), tick.payload());
    }

    #[test]
    fn only_a_tick_has_a_due_time() {
        for (tick, due) in [("1764000000", Some(1_764_000_000)), ("admin-log-7", None)] {
            let sweep = SweepUnminted {
                tick: tick.to_owned(),
            };
            assert_eq!(sweep.due_secs(), due);
        }
    }
}
