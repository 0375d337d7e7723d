//! The tables `readings` and `metered_intervals`: the statements of the intake's transaction, and pruning.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::accepted::Stored;
use super::admission::{ForMeter, NewReading};
use crate::db::BigInt;
use crate::domain::{BaseUnits, Interval, Kwh, ReadingState, Wallet};

#[derive(FromRow)]
struct StoredRow {
    /// ORDINALITY of the submission, from 1.
    place: BigInt,
    id: Uuid,
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Kwh,
    base_units: BaseUnits,
    state: ReadingState,
}

impl TryFrom<StoredRow> for Stored {
    type Error = sqlx::Error;

    fn try_from(row: StoredRow) -> Result<Stored, sqlx::Error> {
        Ok(Stored {
            id: row.id,
            interval: stored_interval(row.interval_start, row.interval_end)?,
            kwh: row.kwh,
            state: row.state,
            base_units: row.base_units,
        })
    }
}

/// The interval of a stored reading. A pair that is not an interval is an error of decoding.
pub(super) fn stored_interval(start: DateTime<Utc>, end: DateTime<Utc>) -> sqlx::Result<Interval> {
    Interval::new(start, end).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// For each submission the stored reading of its meter that begins last before the submission's end: see
/// [`admission`](super::admission) for why one is enough. Reads one entry of the index `readings_once` for each.
pub(super) async fn last_before_ends(
    connection: &mut PgConnection,
    submissions: &[&ForMeter<'_>],
) -> sqlx::Result<Vec<Option<Stored>>> {
    let column = submissions.iter();
    let meters: Vec<i64> = column
        .clone()
        .map(|submission| submission.meter.id)
        .collect();
    let ends: Vec<DateTime<Utc>> = column.map(|submission| submission.interval.end()).collect();
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
    let mut stored = vec![None; submissions.len()];
    for row in rows {
        let place = usize::try_from(row.place.get()).ok();
        let index = place.and_then(|place| place.checked_sub(1));
        let found = index.and_then(|index| stored.get_mut(index));
        *found.ok_or(sqlx::Error::RowNotFound)? = Some(Stored::try_from(row)?);
    }
    Ok(stored)
}

/// Stores readings together with their guarded intervals. False when a concurrent transaction that has committed keeps one of
/// them out: then the caller must roll back, or a reading might stay without its guard.
pub(super) async fn insert(
    connection: &mut PgConnection,
    readings: &[NewReading<'_>],
) -> sqlx::Result<bool> {
    let column = readings.iter();
    let ids: Vec<Uuid> = column.clone().map(|new| new.id).collect();
    let meters: Vec<i64> = column.clone().map(|new| new.meter.id).collect();
    let starts: Vec<DateTime<Utc>> = column.clone().map(|new| new.interval.start()).collect();
    let ends: Vec<DateTime<Utc>> = column.clone().map(|new| new.interval.end()).collect();
    let kwh: Vec<Kwh> = column.clone().map(|new| new.parsed.kwh).collect();
    let base_units: Vec<BaseUnits> = column.clone().map(|new| new.base_units).collect();
    let wallets: Vec<Wallet> = column.clone().map(|new| new.meter.wallet).collect();
    let salts: Vec<[u8; 16]> = column.clone().map(|new| new.salt).collect();
    let signatures: Vec<Option<&str>> = column
        .map(|new| new.parsed.meter_signature.as_deref())
        .collect();
    let guarded = sqlx::query(
        "WITH accepted AS (
             INSERT INTO readings
                 (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature)
             SELECT id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature
             FROM UNNEST($1::UUID[], $2::BIGINT[], $3::TIMESTAMPTZ[], $4::TIMESTAMPTZ[], $5::NUMERIC[],
                         $6::NUMERIC[], $7::BYTEA[], $8::BYTEA[], $9::TEXT[])
               AS new (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt, meter_signature)
             -- Waits for a concurrent transaction that is not decided yet. Then the count of rows shows the conflict, without an
             -- error in the server's log.
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
    Ok(BigInt::from(guarded) == BigInt::from(readings.len()))
}

/// How long a guarded interval outlives the age limit: the longest reading (24 h) and an hour for clocks that differ.
const GUARD_GRACE: TimeDelta = TimeDelta::hours(25);
/// Rows of one DELETE: a transaction so short that the intake does not wait for it.
const PRUNE_ROWS: u32 = 1000;
/// Limit of one call, so that a backlog does not hold up a sweep; the next sweep continues.
const PRUNE_LIMIT: Duration = Duration::from_secs(10);

/// Deletes guarded intervals that no acceptable reading can overlap any more: those that ended before the age limit and
/// 25 h. Returns how many. The readings themselves stay, so a repeated reading is still found.
pub async fn prune_metered_intervals(pool: &PgPool, age_max: Duration) -> sqlx::Result<u64> {
    let started = tokio::time::Instant::now();
    let cutoff = Utc::now() - age_max - GUARD_GRACE;
    // Ids grow with the moment of acceptance, and an interval ends no later than minutes after it. So the oldest ids expire
    // first, and the primary key finds them.
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
        .bind(i64::from(PRUNE_ROWS))
        .execute(pool)
        .await?
        .rows_affected();
        pruned += deleted;
        if deleted < u64::from(PRUNE_ROWS) {
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

/// As the database stores it; a literal lets the planner use a partial index.
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
