//! Tells the admins when minting stops for want of the chain, and when it goes on: once for the whole deployment.
//!
//! Every process has a circuit breaker of its own. Only the one that holds the Resolver's lock speaks, and what it said last is a row
//! that it compares and sets: a successor does not say it again. What lasts for less than a few seconds is not told, so that
//! an endpoint which comes and goes is told as one outage.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::chain::{Cause, CircuitBreaker, CircuitBreakerView};
use crate::db::within;
use crate::outbox::{self, Event, EventFields, EventType, Topic};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Open for so long before it is told.
const OPEN_FOR: TimeDelta = TimeDelta::seconds(2);
/// Closed for so long before it is told: two looks at their slowest, so that an end which only one look saw is none, and a
/// reopening is the same outage.
const CLOSED_FOR: TimeDelta = TimeDelta::seconds(12);

/// Runs while this process holds the Resolver's lock. `limit` is that of one transaction.
pub async fn announce(
    pool: PgPool,
    circuit_breaker: CircuitBreaker,
    limit: Duration,
    stop: CancellationToken,
) {
    // What the row says, once it was read or set.
    let mut told: Option<bool> = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let view = circuit_breaker.view();
        let Some(open) = worth_telling(&view, Utc::now()) else {
            continue;
        };
        if told == Some(open) {
            continue;
        }
        let reason = view.open.map(|cause| cause.to_string());
        match within(limit, tell(&pool, open, reason.as_deref())).await {
            Ok(()) => told = Some(open),
            // Told at a later tick.
            Err(error) => {
                tracing::debug!(%error, "the admins could not be told of the chain breaker")
            }
        }
    }
}

/// Whether it counts as open or closed; `None` while that is too young to be told. The ledger breaker tells for itself.
fn worth_telling(view: &CircuitBreakerView, now: DateTime<Utc>) -> Option<bool> {
    let age = now - view.since;
    match &view.open {
        Some(Cause::LedgerBreaker(_)) => None,
        Some(_) => (age >= OPEN_FOR).then_some(true),
        None => (age >= CLOSED_FOR).then_some(false),
    }
}

async fn tell(pool: &PgPool, open: bool, reason: Option<&str>) -> sqlx::Result<()> {
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
            format!("the chain breaker is open, minting waits and goes on by itself: {reason}")
        }
        None => "the chain breaker is closed: minting goes on".to_owned(),
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
    fn what_comes_and_goes_within_seconds_is_not_told() {
        let now = Utc::now();
        let view = |open: Option<Cause>, secs| CircuitBreakerView {
            open,
            since: now - TimeDelta::seconds(secs),
        };
        let away = || Some(Cause::RateLimited);
        assert_eq!(worth_telling(&view(away(), 1), now), None);
        assert_eq!(worth_telling(&view(away(), 2), now), Some(true));
        assert_eq!(worth_telling(&view(None, 11), now), None);
        assert_eq!(worth_telling(&view(None, 12), now), Some(false));
        let ledger = Cause::LedgerBreaker("a mint is not ours".to_owned());
        assert_eq!(worth_telling(&view(Some(ledger), 60), now), None);
    }
}
