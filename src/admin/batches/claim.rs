//! Claims unminted readings, a bounded step at a time.
//!
//! A step looks at the next few hundred entries of the index `readings_unminted`, in its order, and claims at most a page of
//! those that are meant. So it costs the same whatever waits behind it, and a pass reads nothing twice but what a full page
//! left. Rows that somebody else is changing are passed over; a pass that claimed anything is followed by another, from the
//! beginning.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::batch::{Batch, BatchFilter};
use super::by_index;
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

/// One step of a pass.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub source: ClaimSource,
    pub after: Cursor,
    /// Readings that it claims at most.
    pub page: usize,
    /// Entries of the index that it looks at at most; more than the page.
    pub window: usize,
}

/// What a step has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub readings: Vec<Uuid>,
    /// `None` at the end of the pass.
    pub next: Option<Cursor>,
}

/// One step: claims readings for the batch. `None`: the batch is ended.
pub async fn claim(pool: &PgPool, batch: &Batch, step: Step) -> sqlx::Result<Option<Claim>> {
    let Step {
        source,
        after,
        page,
        window,
    } = step;
    let mut transaction = by_index::begin(pool).await?;
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
    if source == ClaimSource::Stragglers && all_are_held(&mut transaction).await? {
        return Ok(Some(Claim {
            readings: Vec::new(),
            next: None,
        }));
    }
    let seen: Vec<Seen> = statement(batch, source, after, window, page)
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

/// While nothing is minted without a trigger there is nothing to look for, however much waits.
async fn all_are_held(transaction: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT NOT auto_mint_enabled OR auto_mint_percentage = 0
         FROM settings",
    )
    .fetch_one(transaction)
    .await
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

/// An entry that was looked at.
#[derive(FromRow)]
struct Seen {
    id: Uuid,
    next_attempt_at: DateTime<Utc>,
    /// It is for this batch.
    meant: bool,
    /// And it was not in this batch before.
    claimed: bool,
}

/// `seen` in the order of the index.
fn sort_out(seen: &[Seen], window: usize, page: usize) -> Claim {
    let meant = seen.iter().filter(|seen| seen.meant).count();
    let last = if meant >= page {
        // What comes behind the last one of a full page was not judged.
        seen.iter().rev().find(|seen| seen.meant)
    } else {
        seen.last().filter(|_| seen.len() >= window)
    };
    Claim {
        readings: seen
            .iter()
            .filter(|seen| seen.claimed)
            .map(|seen| seen.id)
            .collect(),
        next: last.map(|seen| Cursor::at(seen.next_attempt_at, seen.id)),
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
        .push("WHERE reading.state = ")
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
                   -- Keeps it a look at one entry of the unique index for each reading, never a join with the whole queue.
                   OFFSET 0
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
         SELECT looked_at.id, looked_at.next_attempt_at, meant.id IS NOT NULL AS meant,
                claimed.reading IS NOT NULL AS claimed
         FROM looked_at
         LEFT JOIN meant ON meant.id = looked_at.id
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

    /// `.` not meant, `m` meant and in the batch before, `c` claimed.
    fn seen(entries: &str) -> Vec<Seen> {
        entries
            .chars()
            .enumerate()
            .map(|(index, entry)| Seen {
                id: Uuid::from_u128(index as u128 + 1),
                next_attempt_at: DateTime::UNIX_EPOCH,
                meant: entry != '.',
                claimed: entry == 'c',
            })
            .collect()
    }

    #[test]
    fn a_pass_goes_on_behind_what_was_judged() {
        for (entries, claimed, next) in [
            // A page of two is full: the fourth was not judged.
            ("c.c.", 2, Some(3)),
            ("c.m.", 1, Some(3)),
            // The window of four is full.
            (".c..", 1, Some(4)),
            ("....", 0, Some(4)),
            // The end of the index.
            ("c.", 1, None),
            ("", 0, None),
        ] {
            let claim = sort_out(&seen(entries), 4, 2);
            assert_eq!(claim.readings.len(), claimed, "{entries}");
            let behind = claim.next.map(|cursor| cursor.reading.as_u128());
            assert_eq!(behind, next, "{entries}");
        }
    }
}
