//! Counts unminted readings by the reason they wait.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

use super::auto_mint_settings::StoredSettings;
use crate::ledger::{MINT_TIME_TARGET, ReadingCounts, counted_readings};

/// Unminted readings, by what they wait for.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct WaitingReadings {
    /// Pending readings that the toggle or the roll-out holds back.
    pub held: i64,
    /// Readings that have waited for the service for longer than [`MINT_TIME_TARGET`].
    pub overdue: i64,
    /// When the oldest reading that waits for the service, not for a person (neither held nor failed), was accepted.
    pub oldest_waiting_at: Option<DateTime<Utc>>,
}

impl WaitingReadings {
    /// Only a partial roll-out takes a scan of the unminted readings. If all pending readings are held, or none is, the stored
    /// counts already contain the number.
    pub(super) async fn read(
        connection: &mut PgConnection,
        stored: &StoredSettings,
        readings: &ReadingCounts,
    ) -> sqlx::Result<WaitingReadings> {
        let changed_at = stored.changed_at;
        match stored.settings.buckets_minted() {
            0 => all_held(connection, changed_at, readings).await,
            100 => none_held(connection, changed_at).await,
            buckets => some_held(connection, changed_at, buckets).await,
        }
    }
}

async fn all_held(
    connection: &mut PgConnection,
    changed_at: DateTime<Utc>,
    readings: &ReadingCounts,
) -> sqlx::Result<WaitingReadings> {
    let waiting: WaitingReadings = sqlx::query_as(
        "SELECT 0::BIGINT AS held,
                count(*) FILTER (WHERE GREATEST(accepted_at, $2) < now() - $1) AS overdue,
                min(accepted_at) AS oldest_waiting_at
         FROM readings
         -- Part of the predicate of the index readings_unminted.
         WHERE state IN ('submitted', 'quarantined')",
    )
    .bind(MINT_TIME_TARGET)
    .bind(changed_at)
    .fetch_one(connection)
    .await?;
    Ok(WaitingReadings {
        held: readings.pending,
        ..waiting
    })
}

/// The overdue readings are all waiting readings minus the recent ones: one statement, and so one snapshot.
async fn none_held(
    connection: &mut PgConnection,
    changed_at: DateTime<Utc>,
) -> sqlx::Result<WaitingReadings> {
    sqlx::query_as(concat!(
        "SELECT 0::BIGINT AS held,
                CASE
                    WHEN $2 >= now() - $1 THEN 0
                    ELSE (
                        SELECT COALESCE(sum(readings), 0)
                        FROM ",
        counted_readings!(),
        " AS counted
                        WHERE state IN ('pending', 'submitted', 'quarantined')
                    ) - (
                        SELECT count(*)
                        FROM readings
                        -- The predicate of the index readings_waiting.
                        WHERE state IN ('pending', 'submitted', 'quarantined')
                          AND accepted_at >= now() - $1
                    )
                END::BIGINT AS overdue,
                (
                    SELECT min(accepted_at)
                    FROM readings
                    WHERE state IN ('pending', 'submitted', 'quarantined')
                ) AS oldest_waiting_at",
    ))
    .bind(MINT_TIME_TARGET)
    .bind(changed_at)
    .fetch_one(connection)
    .await
}

async fn some_held(
    connection: &mut PgConnection,
    changed_at: DateTime<Utc>,
    buckets_minted: i16,
) -> sqlx::Result<WaitingReadings> {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE held) AS held,
                count(*) FILTER (WHERE NOT held AND GREATEST(accepted_at, $2) < now() - $1) AS overdue,
                min(accepted_at) FILTER (WHERE NOT held) AS oldest_waiting_at
         FROM (
             SELECT readings.accepted_at,
                    readings.state = 'pending' AND meters.rollout_bucket >= $3 AS held
             FROM readings
             JOIN meters ON meters.id = readings.meter
             WHERE readings.state IN ('pending', 'submitted', 'quarantined')
         ) AS unminted",
    )
    .bind(MINT_TIME_TARGET)
    .bind(changed_at)
    .bind(buckets_minted)
    .fetch_one(connection)
    .await
}
