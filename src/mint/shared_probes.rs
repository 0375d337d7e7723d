//! One process of the deployment probes the endpoints, and the others read what it found in the database.
//!
//! Invariant: a process adopts only what was found moments ago by the database's clock, and only healthy results are shared.
//! Otherwise it probes itself: sharing saves calls and delays no discovery.

use std::time::Duration;

use sqlx::PgPool;

use crate::chain::{EndpointsKey, SharedProbe};

/// A probe is due for all when the last one began this long ago, as a share of the period: clocks of several processes drift.
const DUE_SHARE: f64 = 0.9;

/// The findings of another process from moments ago, with their age. `None`: this process has claimed the probe that is due, or
/// nothing usable is there.
pub(super) async fn recent(
    pool: &PgPool,
    key: &EndpointsKey,
    period: Duration,
) -> sqlx::Result<Option<(SharedProbe, Duration)>> {
    let due_secs = period.as_secs_f64() * DUE_SHARE;
    if claim(pool, key, due_secs).await? {
        return Ok(None);
    }
    let found: Option<(String, f64)> = sqlx::query_as(
        "SELECT found, EXTRACT(EPOCH FROM now() - probed_at)::FLOAT8
         FROM rpc_probes
         WHERE endpoints = $1
           AND found IS NOT NULL
           AND probed_at > now() - make_interval(secs => $2)",
    )
    .bind(key.as_slice())
    .bind(period.as_secs_f64() + due_secs)
    .fetch_optional(pool)
    .await?;
    Ok(found.and_then(|(found, age_secs)| {
        // A row of another version counts as none.
        let found = serde_json::from_str(&found).ok()?;
        Some((found, Duration::try_from_secs_f64(age_secs).ok()?))
    }))
}

/// Whether this process is the one that probes now.
async fn claim(pool: &PgPool, key: &EndpointsKey, due_secs: f64) -> sqlx::Result<bool> {
    let claimed = sqlx::query(
        "INSERT INTO rpc_probes (endpoints, claimed_at)
         VALUES ($1, now())
         ON CONFLICT (endpoints) DO UPDATE
         SET claimed_at = now()
         WHERE rpc_probes.claimed_at <= now() - make_interval(secs => $2)",
    )
    .bind(key.as_slice())
    .bind(due_secs)
    .execute(pool)
    .await?;
    Ok(claimed.rows_affected() == 1)
}

/// Stores what a probe of this process found; `None`: a fault.
pub(super) async fn store(
    pool: &PgPool,
    key: &EndpointsKey,
    found: Option<&SharedProbe>,
) -> sqlx::Result<()> {
    let found = found.and_then(|found| serde_json::to_string(found).ok());
    sqlx::query(
        "INSERT INTO rpc_probes (endpoints, claimed_at, probed_at, found)
         VALUES ($1, now(), now(), $2)
         ON CONFLICT (endpoints) DO UPDATE
         SET claimed_at = now(), probed_at = now(), found = EXCLUDED.found",
    )
    .bind(key.as_slice())
    .bind(found)
    .execute(pool)
    .await?;
    // Lists of endpoints that no process has any more.
    sqlx::query(
        "DELETE FROM rpc_probes
         WHERE claimed_at < now() - interval '1 day'",
    )
    .execute(pool)
    .await?;
    Ok(())
}
