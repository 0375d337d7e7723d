//! Writes down what became of a batch's readings.
//!
//! A row is closed once: under the lock of the batch's row, which numbers the outcomes without gaps and changes the figures
//! with them. Whoever pages through the results while they grow therefore misses none.

use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::by_index;

/// What became of one reading, for the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Minted; for a sweep, submitted.
    Success,
    /// The sentence, or else what the reading itself says.
    Failure(Option<String>),
}

/// Rows that are closed in one transaction: their batch stands still meanwhile.
const CLOSED_PER_STEP: i64 = 250;

/// Closes the rows that are still open; the others stay as they are. Returns how many it closed.
pub async fn close(pool: &PgPool, batch: Uuid, outcomes: &[(Uuid, Outcome)]) -> sqlx::Result<u64> {
    if outcomes.is_empty() {
        return Ok(0);
    }
    let readings: Vec<Uuid> = outcomes.iter().map(|(reading, _)| *reading).collect();
    let successes: Vec<bool> = outcomes
        .iter()
        .map(|(_, outcome)| *outcome == Outcome::Success)
        .collect();
    let errors: Vec<Option<&str>> = outcomes
        .iter()
        .map(|(_, outcome)| match outcome {
            Outcome::Success => None,
            Outcome::Failure(error) => error.as_deref(),
        })
        .collect();
    let mut transaction = by_index::begin(pool).await?;
    let closed_before: Option<i64> = sqlx::query_scalar(
        "SELECT successful_mints + failed_mints
         FROM batches
         WHERE id = $1
           AND state = 'running'
         -- One at a time: the outcomes are numbered behind those that are there.
         FOR NO KEY UPDATE",
    )
    .bind(batch)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(closed_before) = closed_before else {
        return Ok(0);
    };
    let closed: i64 = sqlx::query_scalar(
        "WITH outcome AS (
             SELECT item.reading, outcome.success, outcome.error,
                    row_number() OVER (ORDER BY item.reading) AS place
             FROM UNNEST($3::UUID[], $4::BOOLEAN[], $5::TEXT[]) AS outcome (reading, success, error)
             JOIN batch_readings AS item ON item.reading = outcome.reading
             WHERE item.batch = $1
               AND item.reading = ANY($3)
               AND item.ordinal IS NULL
         ), closed AS (
             UPDATE batch_readings AS item
             SET ordinal = $2 + outcome.place,
                 success = outcome.success,
                 error = CASE
                     WHEN NOT outcome.success
                         THEN COALESCE(outcome.error, reading.last_error, 'it was refused')
                 END,
                 signature = (
                     SELECT mint.signature
                     FROM mint_transaction_readings AS link
                     JOIN mint_transactions AS mint ON mint.number = link.transaction
                     WHERE link.reading = item.reading
                       AND link.live
                 )
             FROM outcome
             JOIN readings AS reading ON reading.id = outcome.reading
             WHERE item.batch = $1
               AND item.reading = outcome.reading
               AND item.reading = ANY($3)
             RETURNING item.success
         ), counted AS (
             SELECT count(*) FILTER (WHERE success) AS successful,
                    count(*) FILTER (WHERE NOT success) AS failed
             FROM closed
         )
         UPDATE batches
         SET successful_mints = successful_mints + counted.successful,
             failed_mints = failed_mints + counted.failed,
             idle_ms = 0
         FROM counted
         WHERE id = $1
         RETURNING counted.successful + counted.failed",
    )
    .bind(batch)
    .bind(closed_before)
    .bind(&readings)
    .bind(&successes)
    .bind(&errors)
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(closed.unsigned_abs())
}

#[derive(FromRow)]
struct Settled {
    reading: Uuid,
    state: String,
}

/// Closes open rows whose reading's own state says what became of it, a bounded number of them. `submitted_is_success`: the batch
/// does not wait for the chain. Returns how many it closed.
pub async fn close_settled(
    pool: &PgPool,
    batch: Uuid,
    submitted_is_success: bool,
) -> sqlx::Result<u64> {
    let mut transaction = by_index::begin(pool).await?;
    let settled: Vec<Settled> = sqlx::query_as(
        "SELECT item.reading, reading.state
         FROM batch_readings AS item
         JOIN readings AS reading ON reading.id = item.reading
         WHERE item.batch = $1
           AND item.ordinal IS NULL
           AND reading.state <> 'pending'
           AND (reading.state <> 'submitted' OR $2)
         ORDER BY item.reading
         LIMIT $3",
    )
    .bind(batch)
    .bind(submitted_is_success)
    .bind(CLOSED_PER_STEP)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let outcomes: Vec<(Uuid, Outcome)> = settled
        .into_iter()
        .map(|settled| (settled.reading, outcome_of(&settled.state)))
        .collect();
    close(pool, batch, &outcomes).await
}

fn outcome_of(state: &str) -> Outcome {
    match state {
        "submitted" | "minted" | "finalized" => Outcome::Success,
        "quarantined" => Outcome::Failure(Some(
            "its transaction is quarantined: no endpoint can prove what became of it".to_owned(),
        )),
        // failed: its last_error says why.
        _ => Outcome::Failure(None),
    }
}

/// Closes open rows, a bounded number of them, as not minted for this reason: all of them, or only those whose reading is pending.
/// What was submitted and is not confirmed is told so. Returns how many it closed.
pub async fn close_open(
    pool: &PgPool,
    batch: Uuid,
    only_pending: bool,
    reason: &str,
) -> sqlx::Result<u64> {
    let mut transaction = by_index::begin(pool).await?;
    let open: Vec<Settled> = sqlx::query_as(
        "SELECT item.reading, reading.state
         FROM batch_readings AS item
         JOIN readings AS reading ON reading.id = item.reading
         WHERE item.batch = $1
           AND item.ordinal IS NULL
           AND (reading.state = 'pending' OR NOT $2)
         ORDER BY item.reading
         LIMIT $3",
    )
    .bind(batch)
    .bind(only_pending)
    .bind(CLOSED_PER_STEP)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let outcomes: Vec<(Uuid, Outcome)> = open
        .into_iter()
        .map(|open| {
            let outcome = match open.state.as_str() {
                "pending" => Outcome::Failure(Some(reason.to_owned())),
                "submitted" => Outcome::Failure(Some(
                    "submitted, but not confirmed in time: it is brought to its end without this batch".to_owned(),
                )),
                state => outcome_of(state),
            };
            (open.reading, outcome)
        })
        .collect();
    close(pool, batch, &outcomes).await
}

/// Open rows whose reading is pending, `page` at most behind `after`: claimed by a run that died, or given back by a dead
/// transaction.
pub async fn open_pending(
    pool: &PgPool,
    batch: Uuid,
    after: Uuid,
    page: usize,
) -> sqlx::Result<Vec<Uuid>> {
    let mut transaction = by_index::begin(pool).await?;
    let pending = sqlx::query_scalar(
        "SELECT item.reading
         FROM batch_readings AS item
         JOIN readings AS reading ON reading.id = item.reading
         WHERE item.batch = $1
           AND item.ordinal IS NULL
           AND item.reading > $2
           AND reading.state = 'pending'
         ORDER BY item.reading
         LIMIT $3",
    )
    .bind(batch)
    .bind(after)
    .bind(page as i64)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(pending)
}
