//! The tables `readings` and `metered_intervals`: what the intake's transaction says to them, and their pruning.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::admission::{ForMeter, NewReading, Stored};
use crate::domain::{BaseUnits, Interval, Kwh, ReadingState};

#[derive(FromRow)]
struct StoredRow {
    place: i64,
    id: Uuid,
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Decimal,
    base_units: Decimal,
    state: String,
}

impl TryFrom<StoredRow> for Stored {
    type Error = sqlx::Error;

    fn try_from(row: StoredRow) -> Result<Stored, sqlx::Error> {
        Ok(Stored {
            id: row.id,
            interval: Interval::new(row.interval_start, row.interval_end).map_err(undecodable)?,
            kwh: Kwh::from_decimal(row.kwh).map_err(undecodable)?,
            state: row.state.parse().map_err(undecodable)?,
            base_units: BaseUnits::from_decimal(row.base_units).map_err(undecodable)?,
        })
    }
}

/// A stored value that our own types refuse.
pub(super) fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// For each claim the stored reading of its meter that begins last before the claim's end: see
/// [`admission`](super::admission) for why one is enough. Reads one entry of the index `readings_once` a claim.
pub(super) async fn last_before_ends(
    connection: &mut PgConnection,
    claims: &[ForMeter<'_>],
) -> sqlx::Result<Vec<Option<Stored>>> {
    let meters: Vec<i64> = claims.iter().map(|claim| claim.meter.id).collect();
    let ends: Vec<DateTime<Utc>> = claims.iter().map(|claim| claim.interval.end()).collect();
    let rows: Vec<StoredRow> = sqlx::query_as(
        "SELECT claim.place, stored.*
         FROM UNNEST($1::BIGINT[], $2::TIMESTAMPTZ[]) WITH ORDINALITY AS claim (meter, ends_at, place)
         CROSS JOIN LATERAL (
             SELECT id, interval_start, interval_end, kwh, base_units, state
             FROM readings
             WHERE meter = claim.meter
               AND interval_start < claim.ends_at
             ORDER BY interval_start DESC
             LIMIT 1
         ) stored",
    )
    .bind(meters)
    .bind(ends)
    .fetch_all(connection)
    .await?;
    let mut stored = vec![None; claims.len()];
    for row in rows {
        // ORDINALITY counts from 1.
        let place = usize::try_from(row.place - 1).map_err(undecodable)?;
        stored[place] = Some(Stored::try_from(row)?);
    }
    Ok(stored)
}

/// Stores readings together with their guarded intervals. False when a rival that committed meanwhile keeps one of them
/// out: the caller must roll back, or a reading might stay without its guard.
pub(super) async fn insert(
    connection: &mut PgConnection,
    readings: &[NewReading<'_>],
) -> sqlx::Result<bool> {
    let column = readings.iter();
    let ids: Vec<Uuid> = column.clone().map(|new| new.id).collect();
    let meters: Vec<i64> = column.clone().map(|new| new.meter.id).collect();
    let starts: Vec<DateTime<Utc>> = column.clone().map(|new| new.interval.start()).collect();
    let ends: Vec<DateTime<Utc>> = column.clone().map(|new| new.interval.end()).collect();
    let kwh: Vec<Decimal> = column
        .clone()
        .map(|new| new.claim.kwh.as_decimal())
        .collect();
    let base_units: Vec<Decimal> = column
        .clone()
        .map(|new| new.base_units.to_decimal())
        .collect();
    let wallets: Vec<[u8; 32]> = column.clone().map(|new| new.meter.wallet.bytes()).collect();
    let salts: Vec<[u8; 16]> = column.clone().map(|new| new.salt).collect();
    let signatures: Vec<Option<&str>> = column
        .map(|new| new.claim.meter_signature.as_deref())
        .collect();
    let guarded = sqlx::query(
        "WITH accepted AS (
             INSERT INTO readings
                 (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature)
             SELECT id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature
             FROM UNNEST($1::UUID[], $2::BIGINT[], $3::TIMESTAMPTZ[], $4::TIMESTAMPTZ[], $5::NUMERIC[],
                         $6::NUMERIC[], $7::BYTEA[], $8::BYTEA[], $9::TEXT[])
               AS new (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature)
             -- Waits for a rival that is not decided yet; then the count tells, without an error in the server's log.
             ON CONFLICT DO NOTHING
             RETURNING id, meter, interval_start, interval_end
         )
         INSERT INTO metered_intervals (reading, meter, metered)
         SELECT id, meter, tstzrange(interval_start, interval_end, '[)')
         FROM accepted
         ON CONFLICT DO NOTHING",
    )
    .bind(ids)
    .bind(meters)
    .bind(starts)
    .bind(ends)
    .bind(kwh)
    .bind(base_units)
    .bind(wallets)
    .bind(salts)
    .bind(signatures)
    .execute(connection)
    .await?
    .rows_affected();
    Ok(guarded == readings.len() as u64)
}

/// How long a guarded interval outlives the age limit: the longest reading (24 h) and an hour for clocks that differ.
const GUARD_GRACE: TimeDelta = TimeDelta::hours(25);
/// Rows of one DELETE: a short transaction, that no intake waits for.
const PRUNE_ROWS: i64 = 1000;
/// Limit of one call, so that a sweep never hangs on a backlog; the next one goes on.
const PRUNE_LIMIT: Duration = Duration::from_secs(10);

/// Deletes guarded intervals that no acceptable reading can overlap any more: those that ended before the age limit and
/// 25 h. Returns how many. The readings themselves stay, and a reading that is the same again is still found.
pub async fn prune_metered_intervals(pool: &PgPool, age_max: Duration) -> sqlx::Result<u64> {
    let started = tokio::time::Instant::now();
    let cutoff = Utc::now() - age_max - GUARD_GRACE;
    // Ids grow with the moment of acceptance, and no interval ends later than minutes after it: so the oldest ids are the
    // first to go, and the primary key finds them.
    let accepted_before = first_id_at(cutoff);
    let mut pruned = 0;
    while started.elapsed() < PRUNE_LIMIT {
        let deleted = sqlx::query(
            "DELETE FROM metered_intervals
             WHERE reading IN (
                 SELECT reading
                 FROM metered_intervals
                 WHERE reading < $1
                   AND upper(metered) < $2
                 ORDER BY reading
                 LIMIT $3
             )",
        )
        .bind(accepted_before)
        .bind(cutoff)
        .bind(PRUNE_ROWS)
        .execute(pool)
        .await?
        .rows_affected();
        pruned += deleted;
        if deleted < PRUNE_ROWS as u64 {
            break;
        }
    }
    Ok(pruned)
}

/// The lowest UUIDv7 of a moment: a reading that was accepted before it has a lower id.
pub fn first_id_at(moment: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(moment.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// As the database writes it; for literals that let the planner use a partial index.
pub(super) fn state_literal(state: ReadingState) -> String {
    format!("'{}'", state.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_the_moment_of_acceptance() {
        let now = Utc::now();
        let id = Uuid::now_v7();
        assert!(first_id_at(now - TimeDelta::milliseconds(1)) < id);
        assert!(id < first_id_at(now + TimeDelta::seconds(60)));
        assert_eq!(first_id_at(now).get_version_num(), 7);
    }
}
