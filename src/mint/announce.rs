//! Notifies admins when minting stops because the chain is unavailable, and when it resumes: once for the whole deployment.
//!
//! Every process has its own circuit breaker. Only the process that holds the resolver's lock notifies, and its last notice
//! is a row that it compares and sets, so a successor does not repeat it. A state that lasts for less than a few seconds is not
//! announced, so that an intermittent endpoint is announced as one outage.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};

use crate::chain::{Cause, CircuitBreaker, CircuitBreakerView};
use crate::db;
use crate::outbox::{self, Event, EventFields, EventType, Topic};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Open for at least this long before it is announced.
const OPEN_FOR: TimeDelta = TimeDelta::seconds(2);
/// Closed for at least this long before it is announced: two probes at their slowest, so that a single successful probe does
/// not end the outage, and a reopening belongs to the same outage.
const CLOSED_FOR: TimeDelta = TimeDelta::seconds(12);

/// Compares the circuit breaker with what was announced.
struct Announcer {
    pool: PgPool,
    circuit_breaker: CircuitBreaker,
    /// State in the row, once it was compared or set.
    announced: Option<bool>,
}

/// Announces while this process holds the resolver's lock.
pub fn outage_announcements(
    pool: PgPool,
    circuit_breaker: CircuitBreaker,
    limit: Duration,
) -> PeriodicTask {
    let announcer = Announcer {
        pool,
        circuit_breaker,
        announced: None,
    };
    let timing = Timing::new("outage announcements", CHECK_EVERY).with_limit(limit);
    PeriodicTask::of_leader(timing, announcer)
}

impl Periodic for Announcer {
    async fn run(&mut self) -> Result<(), RunError> {
        let view = self.circuit_breaker.view();
        let Some(open) = state_to_announce(&view, Utc::now()) else {
            return Ok(());
        };
        if self.announced != Some(open) {
            let reason = view.open.map(|cause| cause.to_string());
            announce_state(&self.pool, open, reason.as_deref()).await?;
            self.announced = Some(open);
        }
        Ok(())
    }
}

/// Whether it counts as open or closed; `None` while that is too recent to announce. The ledger breaker has its own notices.
fn state_to_announce(view: &CircuitBreakerView, now: DateTime<Utc>) -> Option<bool> {
    let age = now - view.since;
    match &view.open {
        Some(Cause::LedgerBreaker(_)) => None,
        Some(_) => (age >= OPEN_FOR).then_some(true),
        None => (age >= CLOSED_FOR).then_some(false),
    }
}

async fn announce_state(pool: &PgPool, open: bool, reason: Option<&str>) -> sqlx::Result<()> {
    let mut transaction = db::begin(pool).await?;
    let changed = sqlx::query(
        "UPDATE chain_breaker
         SET open = $1, reason = $2, changed_at = now()
         WHERE open <> $1",
    )
    .bind(open)
    .bind(reason)
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 1 {
        publish(&mut transaction, reason).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn publish(transaction: &mut PgConnection, reason: Option<&str>) -> sqlx::Result<()> {
    let sentence = match reason {
        Some(reason) => {
            format!(
                "the chain breaker is open: minting is paused and resumes automatically: {reason}"
            )
        }
        None => "the chain breaker is closed: minting resumes".to_owned(),
    };
    let fields = EventFields {
        error_reason: Some(sentence),
        ..EventFields::default()
    };
    let event = Event::new(EventType::AdminNotification, &fields);
    outbox::publish(transaction, &[event]).await?;
    outbox::notify(transaction, Topic::Outbox).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SigningRefused;

    #[test]
    fn a_change_that_lasts_for_seconds_is_not_announced() {
        let now = Utc::now();
        let view = |open: Option<Cause>, secs| CircuitBreakerView {
            open,
            since: now - TimeDelta::seconds(secs),
        };
        let open = || Some(Cause::RateLimited);
        assert_eq!(state_to_announce(&view(open(), 1), now), None);
        assert_eq!(state_to_announce(&view(open(), 2), now), Some(true));
        assert_eq!(state_to_announce(&view(None, 11), now), None);
        assert_eq!(state_to_announce(&view(None, 12), now), Some(false));
        let ledger = Cause::LedgerBreaker(SigningRefused::Unbound);
        assert_eq!(state_to_announce(&view(Some(ledger), 60), now), None);
    }
}
