//! Stores the outcome of each of a batch's readings.
//!
//! A row of `batch_readings` is closed once, under the lock of the batch's row: the outcomes are numbered without gaps, and the
//! figures change with them. A caller that pages through the results while they grow therefore misses none.

use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::claim_readings::begin_with_index_plans;
use crate::domain::ReadingState;

/// The outcome of one reading, for the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadingOutcome {
    /// It reached the state that [`SuccessAt`] names.
    Success,
    /// With the sentence to show; `None`: the reading's own last error.
    Failure(Option<String>),
    /// It is not minted and has not failed: it waits for funds, for its backoff, for auto-mint or for confirmation, as this
    /// sentence says. It is finished without the batch.
    Waiting(String),
}

impl ReadingOutcome {
    fn error(&self) -> Option<&str> {
        match self {
            ReadingOutcome::Success => None,
            ReadingOutcome::Failure(error) => error.as_deref(),
            ReadingOutcome::Waiting(reason) => Some(reason),
        }
    }
}

/// The state from which on a reading counts as a success of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuccessAt {
    /// The batch does not wait for the chain.
    Submitted,
    /// Its mint transaction is confirmed.
    Confirmed,
}

/// The open rows that [`close_open`] closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRows {
    All,
    /// Rows whose reading is pending; a submitted reading may still be confirmed.
    Pending,
}

/// Rows that are closed in one transaction, which locks their batch.
const CLOSED_PER_STEP: i64 = 250;

/// Closes the rows of these readings that are still open; the others stay as they are. Returns how many it closed.
pub async fn close(
    pool: &PgPool,
    batch: Uuid,
    outcomes: &[(Uuid, ReadingOutcome)],
) -> sqlx::Result<u64> {
    if outcomes.is_empty() {
        return Ok(0);
    }
    let mut transaction = begin_with_index_plans(pool).await?;
    let Some(closed_before) = lock_running(&mut transaction, batch).await? else {
        return Ok(0);
    };
    let closed = close_rows(&mut transaction, batch, closed_before, outcomes).await?;
    transaction.commit().await?;
    Ok(closed.unsigned_abs())
}

/// Locks the batch's row, and returns how many of its rows are closed. `None`: the batch has ended.
async fn lock_running(transaction: &mut PgConnection, batch: Uuid) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(
        "SELECT successful_mints + failed_mints
         FROM batches
         WHERE id = $1
           AND state = 'running'
         -- One transaction at a time: the new outcomes are numbered after the existing ones.
         FOR NO KEY UPDATE",
    )
    .bind(batch)
    .fetch_optional(transaction)
    .await
}

/// Closes the rows that are still open, numbered from `closed_before` on, and adds them to the batch's figures.
async fn close_rows(
    transaction: &mut PgConnection,
    batch: Uuid,
    closed_before: i64,
    outcomes: &[(Uuid, ReadingOutcome)],
) -> sqlx::Result<i64> {
    let readings: Vec<Uuid> = outcomes.iter().map(|(reading, _)| *reading).collect();
    let successes: Vec<bool> = outcomes
        .iter()
        .map(|(_, outcome)| *outcome == ReadingOutcome::Success)
        .collect();
    let waits: Vec<bool> = outcomes
        .iter()
        .map(|(_, outcome)| matches!(outcome, ReadingOutcome::Waiting(_)))
        .collect();
    let errors: Vec<Option<&str>> = outcomes
        .iter()
        .map(|(_, outcome)| outcome.error())
        .collect();
    sqlx::query_scalar(
        "WITH outcome AS (
             SELECT item.reading, outcome.success, outcome.waiting, outcome.error,
                    row_number() OVER (ORDER BY item.reading) AS place
             FROM UNNEST($3::UUID[], $4::BOOLEAN[], $5::BOOLEAN[], $6::TEXT[])
                 AS outcome (reading, success, waiting, error)
             JOIN batch_readings AS item ON item.reading = outcome.reading
             WHERE item.batch = $1
               AND item.reading = ANY($3)
               AND item.ordinal IS NULL
         ), closed AS (
             UPDATE batch_readings AS item
             SET ordinal = $2 + outcome.place,
                 success = outcome.success,
                 waiting = outcome.waiting,
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
             RETURNING item.success, item.waiting
         ), counted AS (
             SELECT count(*) FILTER (WHERE success) AS successful,
                    count(*) FILTER (WHERE waiting) AS waiting,
                    count(*) FILTER (WHERE NOT success) AS not_minted
             FROM closed
         )
         UPDATE batches
         SET successful_mints = successful_mints + counted.successful,
             failed_mints = failed_mints + counted.not_minted,
             waiting_mints = waiting_mints + counted.waiting,
             idle_ms = 0
         FROM counted
         WHERE id = $1
         RETURNING counted.successful + counted.not_minted",
    )
    .bind(batch)
    .bind(closed_before)
    .bind(&readings)
    .bind(&successes)
    .bind(&waits)
    .bind(&errors)
    .fetch_one(transaction)
    .await
}

#[derive(FromRow)]
struct OpenRow {
    reading: Uuid,
    state: ReadingState,
}

/// Closes a bounded number of open rows whose reading has reached a state that decides the outcome. Returns how many it closed.
pub async fn close_settled(pool: &PgPool, batch: Uuid, success_at: SuccessAt) -> sqlx::Result<u64> {
    let mut transaction = begin_with_index_plans(pool).await?;
    let settled: Vec<OpenRow> = sqlx::query_as(
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
    .bind(success_at == SuccessAt::Submitted)
    .bind(CLOSED_PER_STEP)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let outcomes: Vec<(Uuid, ReadingOutcome)> = settled
        .into_iter()
        .map(|row| (row.reading, outcome_of(row.state)))
        .collect();
    close(pool, batch, &outcomes).await
}

fn outcome_of(state: ReadingState) -> ReadingOutcome {
    match state {
        ReadingState::Submitted | ReadingState::Minted | ReadingState::Finalized => {
            ReadingOutcome::Success
        }
        ReadingState::Quarantined => ReadingOutcome::Failure(Some(
            "its transaction is quarantined: no endpoint can prove whether it landed".to_owned(),
        )),
        // The last error of a failed reading says why.
        ReadingState::Failed | ReadingState::Pending => ReadingOutcome::Failure(None),
    }
}

/// Closes a bounded number of open rows as failed for this reason. A row whose reading is submitted and not confirmed is left
/// waiting instead. Returns how many it closed.
pub async fn close_open(
    pool: &PgPool,
    batch: Uuid,
    rows: OpenRows,
    reason: &str,
) -> sqlx::Result<u64> {
    let mut transaction = begin_with_index_plans(pool).await?;
    let open: Vec<OpenRow> = sqlx::query_as(
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
    .bind(rows == OpenRows::Pending)
    .bind(CLOSED_PER_STEP)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let outcomes: Vec<(Uuid, ReadingOutcome)> = open
        .into_iter()
        .map(|row| {
            let outcome = match row.state {
                ReadingState::Pending => ReadingOutcome::Failure(Some(reason.to_owned())),
                ReadingState::Submitted => ReadingOutcome::Waiting(
                    "submitted, but not confirmed in time: the resolver finishes it without this batch"
                        .to_owned(),
                ),
                ReadingState::Minted
                | ReadingState::Finalized
                | ReadingState::Failed
                | ReadingState::Quarantined => outcome_of(row.state),
            };
            (row.reading, outcome)
        })
        .collect();
    close(pool, batch, &outcomes).await
}

/// At most `page` open rows behind `after` whose reading is pending: a run that died has claimed it, or its mint transaction
/// was proven dead.
pub async fn open_pending(
    pool: &PgPool,
    batch: Uuid,
    after: Uuid,
    page: u16,
) -> sqlx::Result<Vec<Uuid>> {
    let mut transaction = begin_with_index_plans(pool).await?;
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
    .bind(i64::from(page))
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(pending)
}
