//! No moment of a meter is in two paid intervals.
//!
//! The constraint `metered_once` keeps two such readings out when they arrive, and its table is pruned; this proves it from the
//! books. One pass over the readings of a meter in the order of their starts: one that starts before the latest end so far
//! overlaps.

use sqlx::PgPool;
use uuid::Uuid;

use super::difference::Difference;

/// Meters in one statement.
const METERS: i64 = 500;
/// Rows that are fetched: further ones would not be listed.
const ROWS_MAX: i64 = 2_000;

/// Over all paid readings, some meters at a time.
pub(super) async fn all(pool: &PgPool) -> sqlx::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let mut after: Option<i64> = Some(i64::MIN);
    while let Some(above) = after {
        let meters: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM meters WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(above)
                .bind(METERS)
                .fetch_all(pool)
                .await?;
        after = meters.last().copied();
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT later.id, other.id
             FROM (
                 SELECT id, meter, interval_start, interval_end,
                        max(interval_end) OVER (
                            PARTITION BY meter
                            ORDER BY interval_start, interval_end, id
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                        ) AS covered_until
                 FROM readings
                 WHERE meter = ANY($1)
                   AND state IN ('minted', 'finalized')
             ) AS later
             CROSS JOIN LATERAL (
                 SELECT id
                 FROM readings AS earlier
                 WHERE earlier.meter = later.meter
                   AND earlier.state IN ('minted', 'finalized')
                   AND earlier.interval_start <= later.interval_start
                   AND earlier.interval_end > later.interval_start
                   AND earlier.id <> later.id
                 ORDER BY interval_start, id
                 LIMIT 1
             ) AS other
             WHERE later.covered_until > later.interval_start
             ORDER BY later.id
             LIMIT $2",
        )
        .bind(&meters)
        .bind(ROWS_MAX)
        .fetch_all(pool)
        .await?;
        differences.extend(rows.into_iter().map(overlap));
    }
    Ok(differences)
}

/// Readings of landed transactions above this number, or with one of these, against all paid readings of the same meters around
/// them.
pub(super) async fn of_new(
    pool: &PgPool,
    above: i64,
    numbers: &[i64],
) -> sqlx::Result<Vec<Difference>> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "WITH fresh AS (
             SELECT reading.meter, min(reading.interval_start) AS first, max(reading.interval_end) AS last
             FROM mint_transactions AS mint_transaction
             JOIN mint_transaction_readings AS link ON link.transaction = mint_transaction.number
             JOIN readings AS reading ON reading.id = link.reading
             WHERE (mint_transaction.number > $1 OR mint_transaction.number = ANY($2))
               AND mint_transaction.state IN ('confirmed', 'finalized')
             GROUP BY reading.meter
         )
         SELECT later.id, other.id
         FROM fresh
         CROSS JOIN LATERAL (
             SELECT id, meter, interval_start,
                    max(interval_end) OVER (
                        ORDER BY interval_start, interval_end, id
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ) AS covered_until
             FROM readings
             WHERE meter = fresh.meter
               AND state IN ('minted', 'finalized')
               -- No interval is longer than 25 hours, so none that starts earlier reaches the new ones.
               AND interval_start > fresh.first - INTERVAL '25 hours'
               AND interval_start < fresh.last
         ) AS later
         CROSS JOIN LATERAL (
             SELECT id
             FROM readings AS earlier
             WHERE earlier.meter = later.meter
               AND earlier.state IN ('minted', 'finalized')
               AND earlier.interval_start <= later.interval_start
               AND earlier.interval_start > later.interval_start - INTERVAL '25 hours'
               AND earlier.interval_end > later.interval_start
               AND earlier.id <> later.id
             ORDER BY interval_start, id
             LIMIT 1
         ) AS other
         WHERE later.covered_until > later.interval_start
         ORDER BY later.id
         LIMIT $3",
    )
    .bind(above)
    .bind(numbers)
    .bind(ROWS_MAX)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(overlap).collect())
}

fn overlap((reading_id, other): (Uuid, Uuid)) -> Difference {
    Difference::Overlap { reading_id, other }
}
