//! The table `reading_traces`, which carries a trace from one process to another.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::installed::is_on;
use super::trace_context::TraceContext;

/// A batch waits at most this long for the traces of its readings.
const QUERY_LIMIT: Duration = Duration::from_secs(1);
/// Rows of one DELETE.
const PRUNE_ROWS: u32 = 2_000;
/// Statements of one call at most; the next sweep continues.
const PRUNE_STEPS: usize = 50;

/// Stores the trace contexts of new readings in the transaction that stores the readings and their jobs.
pub async fn store_contexts(
    transaction: &mut PgConnection,
    readings: &[(Uuid, &TraceContext)],
) -> sqlx::Result<()> {
    if readings.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = readings.iter().map(|(id, _)| *id).collect();
    let contexts: Vec<String> = readings
        .iter()
        .map(|(_, context)| context.to_string())
        .collect();
    sqlx::query(
        "INSERT INTO reading_traces (reading, traceparent)
         SELECT reading, traceparent
         FROM UNNEST($1::UUID[], $2::TEXT[]) AS new (reading, traceparent)",
    )
    .bind(ids)
    .bind(contexts)
    .execute(transaction)
    .await?;
    Ok(())
}

/// The contexts of those readings that are traced. Empty if the query fails: minting must not depend on it.
pub async fn of_readings(
    pool: &PgPool,
    readings: impl Iterator<Item = Uuid>,
) -> HashMap<Uuid, TraceContext> {
    if !is_on() {
        return HashMap::new();
    }
    let ids: Vec<Uuid> = readings.collect();
    match timeout(QUERY_LIMIT, find(pool, &ids)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "traces of a batch could not be read");
            HashMap::new()
        }
        Err(_) => HashMap::new(),
    }
}

pub(super) async fn find(
    pool: &PgPool,
    readings: &[Uuid],
) -> sqlx::Result<HashMap<Uuid, TraceContext>> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT reading, traceparent
         FROM reading_traces
         WHERE reading = ANY($1)",
    )
    .bind(readings)
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(reading, context)| Some((reading, TraceContext::parse(&context)?)))
        .collect())
}

/// Deletes the contexts of readings whose traces are complete.
pub(super) async fn delete(pool: &PgPool, readings: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM reading_traces
         WHERE reading = ANY($1)",
    )
    .bind(readings)
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes rows that were left behind, of readings whose id is below `before`. Returns the number of rows.
pub async fn prune(pool: &PgPool, before: Uuid) -> sqlx::Result<u64> {
    let mut pruned = 0;
    for _ in 0..PRUNE_STEPS {
        let step = sqlx::query(
            "DELETE FROM reading_traces
             WHERE reading IN (
                 SELECT reading
                 FROM reading_traces
                 WHERE reading < $1
                 ORDER BY reading
                 LIMIT $2
             )",
        )
        .bind(before)
        .bind(i64::from(PRUNE_ROWS))
        .execute(pool)
        .await?
        .rows_affected();
        pruned += step;
        if step < u64::from(PRUNE_ROWS) {
            break;
        }
    }
    Ok(pruned)
}
