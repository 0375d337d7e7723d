//! Notifies admins when minting stops because the chain is unavailable, and when it resumes: once for the whole deployment.
//!
//! Every process has a circuit breaker of its own. Only the process that holds the Resolver's lock notifies, and its last notice
//! is a row that it compares and sets, so a successor does not repeat it. A state that lasts for less than a few seconds is not
//! announced, so that an intermittent endpoint is announced as one outage.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::chain::{Cause, CircuitBreaker, CircuitBreakerView};
use crate::db::within;
use crate::outbox::{self, Event, EventFields, EventType, Topic};
use crate::periodic::Timing;

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// For the list of periodic tasks.
pub const ANNOUNCE_TIMING: Timing = Timing::new("outage announcements", CHECK_EVERY);
/// Open for at least this long before it is announced.
const OPEN_FOR: TimeDelta = TimeDelta::seconds(2);
/// Closed for at least this long before it is announced: two probes at their slowest, so that a single successful probe is no
/// end, and a reopening belongs to the same outage.
const CLOSED_FOR: TimeDelta = TimeDelta::seconds(12);

/// Runs while this process holds the Resolver's lock. `limit` is that of one transaction.
pub async fn announce(
    pool: PgPool,
    circuit_breaker: CircuitBreaker,
    limit: Duration,
    stop: CancellationToken,
) {
    // What the row holds, once it was compared or set.
    let mut announced: Option<bool> = None;
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let view = circuit_breaker.view();
        let Some(open) = state_to_announce(&view, Utc::now()) else {
            continue;
        };
        if announced == Some(open) {
            continue;
        }
        let reason = view.open.map(|cause| cause.to_string());
        match within(limit, announce_state(&pool, open, reason.as_deref())).await {
            Ok(()) => announced = Some(open),
            // A later tick tries again.
            Err(error) => {
                tracing::debug!(%error, "admins could not be notified about the chain breaker")
            }
        }
    }
}

/// Whether it counts as open or closed; `None` while that is too recent to announce. The ledger breaker has notices of its own.
fn state_to_announce(view: &CircuitBreakerView, now: DateTime<Utc>) -> Option<bool> {
    let age = now - view.since;
    match &view.open {
        Some(Cause::LedgerBreaker(_)) => None,
        Some(_) => (age >= OPEN_FOR).then_some(true),
        None => (age >= CLOSED_FOR).then_some(false),
    }
}

async fn announce_state(pool: &PgPool, open: bool, reason: Option<&str>) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
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
            format!("the chain breaker is open: minting waits and resumes by itself: {reason}")
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
        let ledger = Cause::LedgerBreaker("a mint is not ours".to_owned());
        assert_eq!(state_to_announce(&view(Some(ledger), 60), now), None);
    }
}
