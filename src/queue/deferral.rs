//! Decides how long a job is deferred, and records why.
//!
//! A handler that cannot finish its job now returns a [`Deferral`]. The job's `run_at` is the durable timer: apalis fetches a
//! failed job again when that time has come, here or in another process.
//!
//! | why | the job runs again |
//! |---|---|
//! | the circuit breaker stayed open for as long as the job waited for it ([`super::handler_context::CIRCUIT_WAIT`], 10 s) | after 0.5 to 1.5 s |
//! | the reading's own backoff is not over | when it is over (`readings.next_attempt_at`) |
//! | the reading cannot be minted for reasons outside it: chain, database, the minter, or too few funds | after [`DEFERRAL`]: 2 s, 4 s, 8 s, … up to 60 s |
//! | the run failed: time-out, panic, database error, interrupted batch | after [`DEFERRAL`] |
//! | another sweep holds the lock | after 1 s |
//!
//! `mint` makes deferred jobs due at once when an outage ends (`outbox::wake_deferred`).

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::Rng;

use super::handler_context::QueueContext;
use crate::db::within;
use crate::domain::{Backoff, Jitter};

/// Doubled by each run of the job, so that a backlog does not hammer database and chain through an outage. The cap is how
/// long an outage that is over may still delay a reading.
pub(super) const DEFERRAL: Backoff =
    Backoff::doubling(Duration::from_secs(2), Duration::from_secs(60))
        .with_jitter(Jitter::HALF_TO_FULL);

/// The circuit breaker has its own backoff, so a job that waited for it neither runs more often nor later because it waited
/// before. Spread, so that the jobs of a full worker do not return in step.
const AFTER_CIRCUIT_WAIT_MS: std::ops::Range<i64> = 500..1_500;
const AFTER_ANOTHER_SWEEP: TimeDelta = TimeDelta::seconds(1);

/// The reason for which a job is deferred, which decides when it runs again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Deferral {
    /// The circuit breaker is open.
    CircuitOpen,
    /// Another sweep runs.
    AnotherSweep,
    /// The reading's own backoff ends at this moment.
    Until(DateTime<Utc>),
    /// By the number of the job's runs.
    BackOff,
}

impl Deferral {
    fn timing(self, run: u32, now: DateTime<Utc>) -> Timing {
        match self {
            Deferral::CircuitOpen => {
                let spread = rand::rng().random_range(AFTER_CIRCUIT_WAIT_MS);
                Timing::At(now + TimeDelta::milliseconds(spread))
            }
            Deferral::AnotherSweep => Timing::At(now + AFTER_ANOTHER_SWEEP),
            Deferral::Until(moment) => Timing::At(moment),
            Deferral::BackOff => Timing::After(DEFERRAL.delay(run, rand::random())),
        }
    }
}

/// The time of the next run, by one of two clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Timing {
    At(DateTime<Utc>),
    /// By the database's clock.
    After(Duration),
}

/// Defers a job that has run `run` times, this run included.
pub(super) async fn defer(
    context: &QueueContext,
    job: &str,
    run: u32,
    deferral: Deferral,
) -> sqlx::Result<()> {
    let (run_at, after) = match deferral.timing(run, Utc::now()) {
        Timing::At(moment) => (Some(moment), None),
        Timing::After(delay) => (None, Some(delay.as_secs_f64())),
    };
    let deferred = sqlx::query(
        "UPDATE apalis.jobs
         SET run_at = COALESCE($2, now() + $3 * INTERVAL '1 second')
         WHERE id = $1",
    )
    .bind(job)
    .bind(run_at)
    .bind(after)
    .execute(&context.pool);
    within(context.transaction_limit, deferred).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deferral_has_its_delay() {
        let now: DateTime<Utc> = "2026-11-25T04:00:00Z".parse().unwrap();
        for _ in 0..100 {
            let Timing::At(moment) = Deferral::CircuitOpen.timing(9, now) else {
                panic!("a moment");
            };
            assert!((500..1_500).contains(&(moment - now).num_milliseconds()));
        }
        assert_eq!(
            Deferral::AnotherSweep.timing(9, now),
            Timing::At(now + TimeDelta::seconds(1))
        );
        let due = now + TimeDelta::minutes(5);
        assert_eq!(Deferral::Until(due).timing(9, now), Timing::At(due));
        for (run, secs) in [(1, 2), (2, 4), (5, 32), (6, 60), (25, 60)] {
            let Timing::After(delay) = Deferral::BackOff.timing(run, now) else {
                panic!("a delay");
            };
            let exact = Duration::from_secs(secs);
            assert!(delay >= exact / 2 && delay <= exact, "{run}: {delay:?}");
        }
    }
}
