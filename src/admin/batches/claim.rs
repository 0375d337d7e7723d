//! Claims unminted readings, a bounded step at a time.
//!
//! A step looks at the next few hundred readings of the index `readings_unminted`, in its order, and claims at most a page
//! of those that are meant. So it costs the same whatever waits behind it, and nothing is read twice in one pass but what a
//! full page left. Rows that somebody else is changing are passed over; a pass that claimed anything is followed by another,
//! from the beginning.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::batch::{Batch, BatchFilter};
use crate::ledger;

/// Which readings a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimSource {
    /// Pending, due, rolled out while auto-mint is on, and without a live job.
    Stragglers,
    /// Pending, whatever holds it back.
    Pending,
    /// Failed: the claim retries them, so they are pending after it.
    Failed,
}

/// Where a pass goes on: behind this entry of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    next_attempt_at: DateTime<Utc>,
    reading: Uuid,
}

impl Default for Cursor {
    /// Before the first.
    fn default() -> Cursor {
        Cursor {
            next_attempt_at: DateTime::UNIX_EPOCH,
            reading: Uuid::nil(),
        }
    }
}

/// What a step has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub readings: Vec<Uuid>,
    /// `None` at the end of the pass.
    pub next: Option<Cursor>,
}

/// Entries of the index that one step looks at: enough to get past readings that are not meant (their jobs are alive) quickly,
/// few enough for a few milliseconds.
pub(super) const LOOKED_AT: usize = 500;

/// One step: claims at most `page` readings for the batch. `None`: the batch is ended.
pub async fn claim(
    pool: &PgPool,
    batch: &Batch,
    source: ClaimSource,
    after: Cursor,
    page: usize,
) -> sqlx::Result<Option<Claim>> {
    let mut transaction = pool.begin().await?;
    let running: Option<i32> = sqlx::query_scalar(
        "SELECT 1
         FROM batches
         WHERE id = $1
           AND state = 'running'
         -- Nobody ends it, or counts, between the claim and its figure.
         FOR NO KEY UPDATE",
    )
    .bind(batch.id)
    .fetch_optional(&mut *transaction)
    .await?;
    if running.is_none() {
        return Ok(None);
    }
    let window = LOOKED_AT.max(page);
    let seen: Vec<(Uuid, DateTime<Utc>, bool)> = statement(batch, source, after, window, page)
        .build_query_as()
        .fetch_all(&mut *transaction)
        .await?;
    let claim = sort_out(&seen, window, page);
    count(&mut transaction, batch.id, claim.readings.len()).await?;
    if source == ClaimSource::Failed {
        ledger::retry_failed(&mut transaction, &claim.readings).await?;
    }
    transaction.commit().await?;
    Ok(Some(claim))
}

async fn count(transaction: &mut PgConnection, batch: Uuid, claimed: usize) -> sqlx::Result<()> {
    if claimed == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE batches
         SET total_readings = total_readings + $2
         WHERE id = $1",
    )
    .bind(batch)
    .bind(claimed as i64)
    .execute(transaction)
    .await?;
    Ok(())
}

/// What was looked at, in order, and whether it was claimed.
fn sort_out(seen: &[(Uuid, DateTime<Utc>, bool)], window: usize, page: usize) -> Claim {
    let readings: Vec<Uuid> = seen
        .iter()
        .filter(|(_, _, claimed)| *claimed)
        .map(|(reading, ..)| *reading)
        .collect();
    let last = if readings.len() >= page {
        // What comes behind the last one of a full page was not judged.
        seen.iter().rev().find(|(_, _, claimed)| *claimed)
    } else {
        seen.last().filter(|_| seen.len() >= window)
    };
    Claim {
        readings,
        next: last.map(|(reading, next_attempt_at, _)| Cursor {
            next_attempt_at: *next_attempt_at,
            reading: *reading,
        }),
    }
}

fn statement(
    batch: &Batch,
    source: ClaimSource,
    after: Cursor,
    window: usize,
    page: usize,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("WITH looked_at AS MATERIALIZED (");
    push_unminted(
        &mut query,
        "SELECT id, meter, next_attempt_at ",
        source,
        &batch.filter,
        batch.requested_at,
        after,
        window,
    );
    query.push(
        "), meant AS (
             SELECT reading.id
             FROM looked_at
             JOIN readings AS reading ON reading.id = looked_at.id ",
    );
    query.push(match source {
        ClaimSource::Stragglers => "JOIN meters AS meter ON meter.id = looked_at.meter ",
        ClaimSource::Pending | ClaimSource::Failed => "",
    });
    query
        .push(
            "WHERE NOT EXISTS (
                 SELECT
                 FROM batch_readings AS item
                 WHERE item.batch = ",
        )
        .push_bind(batch.id)
        .push(" AND item.reading = looked_at.id) AND reading.state = ")
        .push(state_literal(source));
    query.push(match source {
        ClaimSource::Stragglers => {
            "
               -- The stored settings, not this process' copy: the sweep of a toggle may run before the news of it has come.
               AND meter.rollout_bucket < (
                   SELECT CASE WHEN auto_mint_enabled THEN auto_mint_percentage ELSE 0 END
                   FROM settings
               )
               AND NOT EXISTS (
                   SELECT
                   FROM apalis.jobs AS job
                   WHERE job.job_type = 'MintReading'
                     AND job.idempotency_key = looked_at.id::TEXT
                     AND (job.status IN ('Pending', 'Queued', 'Running')
                          OR (job.status = 'Failed' AND job.attempts < job.max_attempts))
               )"
        }
        ClaimSource::Pending | ClaimSource::Failed => "",
    });
    query
        .push(" ORDER BY looked_at.next_attempt_at, looked_at.id LIMIT ")
        .push_bind(page as i64)
        .push(
            "
             -- Who records or refuses one of them right now has it already.
             FOR NO KEY UPDATE OF reading SKIP LOCKED
         ), claimed AS (
             INSERT INTO batch_readings (batch, reading)
             SELECT ",
        )
        .push_bind(batch.id)
        .push(
            ", id
             FROM meant
             ON CONFLICT DO NOTHING
             RETURNING reading
         )
         SELECT looked_at.id, looked_at.next_attempt_at, claimed.reading IS NOT NULL
         FROM looked_at
         LEFT JOIN claimed ON claimed.reading = looked_at.id
         ORDER BY looked_at.next_attempt_at, looked_at.id",
        );
    query
}

/// Unminted readings that the filter lets through, in the order of their index, behind the cursor.
pub(super) fn push_unminted(
    query: &mut QueryBuilder<Postgres>,
    select: &'static str,
    source: ClaimSource,
    filter: &BatchFilter,
    accepted_until: DateTime<Utc>,
    after: Cursor,
    rows_max: usize,
) {
    query
        .push(select)
        .push("FROM readings WHERE state = ")
        .push(state_literal(source))
        .push(" AND (next_attempt_at, id) > (")
        .push_bind(after.next_attempt_at)
        .push(", ")
        .push_bind(after.reading)
        .push(") AND accepted_at <= ")
        .push_bind(accepted_until);
    if source == ClaimSource::Stragglers {
        query.push(" AND next_attempt_at <= now()");
    }
    if let Some(meter) = filter.meter {
        query.push(" AND meter = ").push_bind(meter);
    }
    if let Some(owner) = &filter.owner {
        query
            .push(" AND meter IN (SELECT theirs.id FROM meters AS theirs WHERE theirs.owner = ")
            .push_bind(owner.clone())
            .push(")");
    }
    if let Some(ending_before) = filter.ending_before {
        query.push(" AND interval_end < ").push_bind(ending_before);
    }
    query
        .push(" ORDER BY next_attempt_at, id LIMIT ")
        .push_bind(rows_max as i64);
}

/// A literal, so that the planner may use the index of the unminted.
fn state_literal(source: ClaimSource) -> &'static str {
    match source {
        ClaimSource::Stragglers | ClaimSource::Pending => "'pending'",
        ClaimSource::Failed => "'failed'",
    }
}

impl Cursor {
    pub(super) fn at(next_attempt_at: DateTime<Utc>, reading: Uuid) -> Cursor {
        Cursor {
            next_attempt_at,
            reading,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(claimed: &[bool]) -> Vec<(Uuid, DateTime<Utc>, bool)> {
        claimed
            .iter()
            .enumerate()
            .map(|(index, claimed)| {
                let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(index as i64);
                (Uuid::from_u128(index as u128 + 1), at, *claimed)
            })
            .collect()
    }

    fn next_of(claim: &Claim) -> Option<u128> {
        claim.next.map(|cursor| cursor.reading.as_u128())
    }

    #[test]
    fn a_pass_goes_on_behind_what_was_judged() {
        let full_page = sort_out(&seen(&[true, false, true, false]), 4, 2);
        assert_eq!(full_page.readings.len(), 2);
        assert_eq!(next_of(&full_page), Some(3), "the fourth was not judged");
        let full_window = sort_out(&seen(&[false, true, false, false]), 4, 2);
        assert_eq!(next_of(&full_window), Some(4));
        let end = sort_out(&seen(&[true, false]), 4, 2);
        assert_eq!((end.readings.len(), next_of(&end)), (1, None));
        assert_eq!(next_of(&sort_out(&[], 4, 2)), None);
    }
}
