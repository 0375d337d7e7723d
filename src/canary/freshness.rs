//! The age of the newest minted canary reading: read from the database, so that all processes report the same.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, PgPool};

use super::canary_meter::OWNER;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::{Health, HealthPart, names};

const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Three readings that were not minted: one alone may be in a transaction that is lost and proven dead.
const FRESH_FOR: TimeDelta = TimeDelta::seconds(180);

/// The state of the canary in the database.
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

    /// Time since the last minted reading; `None` while none is expected. It counts from `began`, the start of this process,
    /// while the canary has no meter.
    pub fn age(&self, began: DateTime<Utc>) -> Option<TimeDelta> {
        if !self.expected {
            return None;
        }
        let since = self.fresh_at.unwrap_or(began).max(self.changed_at);
        Some((self.now - since).max(TimeDelta::zero()))
    }
}

struct FreshnessWatch {
    pool: PgPool,
    health: Health,
    began: DateTime<Utc>,
    last: Option<Freshness>,
}

/// Reports the canary's age to health and metrics. While the database does not answer, the age keeps growing.
pub fn freshness_watch(pool: PgPool, health: Health) -> PeriodicTask {
    metrics::gauge!(names::CANARY_ENABLED).set(1.0);
    let watch = FreshnessWatch {
        pool,
        health,
        began: Utc::now(),
        last: None,
    };
    let timing = Timing::new("canary freshness", CHECK_EVERY).with_limit(CHECK_EVERY);
    PeriodicTask::new(timing, watch)
}

impl Periodic for FreshnessWatch {
    async fn run(&mut self) -> Result<(), RunError> {
        if let Some(last) = &mut self.last {
            last.now = last.now.max(Utc::now());
        }
        self.last = Some(Freshness::read(&self.pool).await?);
        Ok(())
    }

    fn after_run(&mut self) {
        let age = self.last.as_ref().and_then(|last| last.age(self.began));
        report(&self.health, age);
    }
}

fn report(health: &Health, age: Option<TimeDelta>) {
    let age = age.unwrap_or_default();
    metrics::gauge!(names::CANARY_AGE_SECONDS).set(age.as_seconds_f64());
    if age <= FRESH_FOR {
        health.ok(HealthPart::Canary);
    } else {
        health.degraded(
            HealthPart::Canary,
            format!(
                "no canary reading was minted in the last {} s",
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
    fn the_age_counts_from_the_last_minted_reading_or_from_when_minting_became_possible() {
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
        report(&health, None);
        report(&health, Some(FRESH_FOR));
        assert_eq!(health.readiness().status, Status::Ok);
        report(&health, Some(TimeDelta::seconds(181)));
        let readiness = health.readiness();
        assert_eq!(readiness.status, Status::Degraded);
        let reason = readiness.checks["canary"].reason.clone().unwrap();
        assert!(reason.ends_with("181 s"), "{reason}");
    }
}
