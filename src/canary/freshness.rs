//! How long ago a reading of the canary made it, the same for all processes.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, PgPool};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::meter::OWNER;
use crate::telemetry::{Health, names};

const HEALTH_PART: &str = "canary";
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Three readings that did not make it. One may meet a transaction that is lost and proven dead.
const FRESH_FOR: TimeDelta = TimeDelta::seconds(180);

/// What the database says of the canary.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Freshness {
    /// Whether its readings are minted without a trigger.
    expected: bool,
    /// Acceptance of its newest reading that was minted; before the first, when its meter was registered.
    fresh_at: Option<DateTime<Utc>>,
    /// When minting was last switched on or off.
    changed_at: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Freshness {
    /// Reads one entry of an index for each canary meter, and one for each of its readings that was not minted since.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Freshness> {
        sqlx::query_as(
            "SELECT settings.auto_mint_enabled AND settings.auto_mint_percentage > 0 AS expected,
                    (
                        SELECT max(COALESCE(minted.accepted_at, meter.registered_at))
                        FROM meters AS meter
                        LEFT JOIN LATERAL (
                            SELECT accepted_at
                            FROM readings
                            WHERE readings.meter = meter.id
                              AND state IN ('minted', 'finalized')
                            ORDER BY id DESC
                            LIMIT 1
                        ) AS minted ON TRUE
                        WHERE meter.owner = $1
                    ) AS fresh_at,
                    settings.changed_at,
                    now() AS now
             FROM settings",
        )
        .bind(OWNER)
        .fetch_one(pool)
        .await
    }

    /// Since when a reading should have made it; `None` while none is expected. `began` is when this process did: before
    /// the canary has a meter there is nothing else to count from.
    pub fn age(&self, began: DateTime<Utc>) -> Option<TimeDelta> {
        if !self.expected {
            return None;
        }
        let since = self.fresh_at.unwrap_or(began).max(self.changed_at);
        Some((self.now - since).max(TimeDelta::zero()))
    }
}

/// Tells health and metrics, until told to stop. While the database does not answer the age of the last answer grows.
pub async fn watch_freshness(pool: PgPool, health: Health, stop: CancellationToken) {
    metrics::gauge!(names::CANARY_ENABLED).set(1.0);
    let began = Utc::now();
    let mut last: Option<Freshness> = None;
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let looking = timeout(LOOK_EVERY, Freshness::read(&pool));
        match stop.run_until_cancelled(looking).await {
            None => return,
            Some(Ok(Ok(freshness))) => last = Some(freshness),
            Some(Ok(Err(_)) | Err(_)) => {
                if let Some(last) = &mut last {
                    last.now = last.now.max(Utc::now());
                }
            }
        }
        let age = last.as_ref().and_then(|last| last.age(began));
        tell(&health, age);
    }
}

fn tell(health: &Health, age: Option<TimeDelta>) {
    let age = age.unwrap_or_default();
    metrics::gauge!(names::CANARY_AGE_SECONDS).set(age.as_seconds_f64());
    if age <= FRESH_FOR {
        health.ok(HEALTH_PART);
    } else {
        health.degraded(
            HEALTH_PART,
            format!(
                "no reading of the canary was minted that was sent in the last {} s",
                age.num_seconds()
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Status;

    #[test]
    fn the_age_counts_from_what_was_minted_or_could_have_been() {
        let now = Utc::now();
        let ago = |seconds| now - TimeDelta::seconds(seconds);
        let freshness = |expected, fresh: Option<i64>, changed| Freshness {
            expected,
            fresh_at: fresh.map(ago),
            changed_at: ago(changed),
            now,
        };
        let age = |freshness: Freshness| freshness.age(ago(40)).map(|age| age.num_seconds());
        assert_eq!(age(freshness(true, Some(70), 9_000)), Some(70));
        assert_eq!(
            age(freshness(true, Some(7_000), 30)),
            Some(30),
            "just switched on"
        );
        assert_eq!(age(freshness(false, Some(7_000), 9_000)), None, "held back");
        assert_eq!(age(freshness(true, None, 9_000)), Some(40), "no meter yet");
    }

    #[test]
    fn health_degrades_after_three_minutes() {
        let health = Health::default();
        tell(&health, None);
        tell(&health, Some(FRESH_FOR));
        assert_eq!(health.readiness().status, Status::Ok);
        tell(&health, Some(TimeDelta::seconds(181)));
        let readiness = health.readiness();
        assert_eq!(readiness.status, Status::Degraded);
        let reason = readiness.checks["canary"].reason.clone().unwrap();
        assert!(reason.ends_with("181 s"), "{reason}");
    }
}
