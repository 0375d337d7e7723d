//! Claims unminted readings, a bounded step at a time.
//!
//! A step reads the next few hundred entries of the index `readings_unminted`, in its order, and claims at most a page of
//! those that match. So a step costs the same however many readings wait behind it, and a pass reads no entry twice except
//! those that a full page left over. Rows that another transaction has locked are skipped; a pass that claimed a reading is
//! followed by another pass from the beginning.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, QueryBuilder, Transaction};
use uuid::Uuid;

use super::batch::Batch;
use super::unminted::{ClaimSource, Cursor, UnmintedQuery};
use crate::db;
use crate::ledger;

/// One step of a pass.
#[derive(Clone, Copy, Debug)]
pub struct ClaimStep {
    pub source: ClaimSource,
    pub after: Cursor,
    /// Readings that it claims at most.
    pub page: u16,
    /// Entries of the index that it reads at most; more than the page.
    pub window: u16,
}

/// The readings that a step has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedPage {
    pub readings: Vec<Uuid>,
    /// `None` at the end of the pass.
    pub next: Option<Cursor>,
}

/// Begins a transaction whose plans do not depend on statistics: it finds its rows by index. `batch_readings` and the queue
/// are nearly empty most of the time and suddenly large. A plan that was made while a table was empty reads the whole table
/// for each row, until the next automatic ANALYZE (measured after 5,000 readings: 1.4 s instead of 4 ms for a step of 50).
pub(super) async fn begin_with_index_plans(
    pool: &PgPool,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = db::begin(pool).await?;
    sqlx::query("SET LOCAL enable_seqscan = off")
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// Claims readings for the batch in one step. `None`: the batch has ended.
pub async fn claim(
    pool: &PgPool,
    batch: &Batch,
    step: ClaimStep,
) -> sqlx::Result<Option<ClaimedPage>> {
    let mut transaction = begin_with_index_plans(pool).await?;
    let running: Option<i32> = sqlx::query_scalar(
        "SELECT 1
         FROM batches
         WHERE id = $1
           AND state = 'running'
         -- Between the claim and its figure no other transaction may end the batch or change its figures.
         FOR NO KEY UPDATE",
    )
    .bind(batch.id)
    .fetch_optional(&mut *transaction)
    .await?;
    if running.is_none() {
        return Ok(None);
    }
    if step.source == ClaimSource::Stragglers && all_are_held(&mut transaction).await? {
        return Ok(Some(ClaimedPage {
            readings: Vec::new(),
            next: None,
        }));
    }
    let entries: Vec<IndexEntry> = statement(batch, step)
        .build_query_as()
        .fetch_all(&mut *transaction)
        .await?;
    let claimed = claimed_page(&entries, step.window, step.page);
    add_to_total(&mut transaction, batch.id, &claimed.readings).await?;
    if step.source == ClaimSource::Failed {
        ledger::retry_failed(&mut transaction, &claimed.readings).await?;
    }
    transaction.commit().await?;
    Ok(Some(claimed))
}

/// While nothing is minted without a trigger there is no straggler, however many readings wait.
async fn all_are_held(transaction: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT NOT auto_mint_enabled OR auto_mint_percentage = 0
         FROM settings",
    )
    .fetch_one(transaction)
    .await
}

async fn add_to_total(
    transaction: &mut PgConnection,
    batch: Uuid,
    claimed: &[Uuid],
) -> sqlx::Result<()> {
    if claimed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE batches
         SET total_readings = total_readings + cardinality($2::UUID[])
         WHERE id = $1",
    )
    .bind(batch)
    .bind(claimed)
    .execute(transaction)
    .await?;
    Ok(())
}

/// An entry of the index that a step has read.
#[derive(FromRow)]
struct IndexEntry {
    id: Uuid,
    next_attempt_at: DateTime<Utc>,
    /// The batch may claim this reading.
    matches: bool,
    /// It matches, and was not in this batch before.
    claimed: bool,
}

/// `entries` in the order of the index.
fn claimed_page(entries: &[IndexEntry], window: u16, page: u16) -> ClaimedPage {
    let matching = entries.iter().filter(|entry| entry.matches).count();
    let last = if matching >= usize::from(page) {
        // The statement did not decide about entries behind the last one of a full page.
        entries.iter().rev().find(|entry| entry.matches)
    } else {
        entries
            .last()
            .filter(|_| entries.len() >= usize::from(window))
    };
    ClaimedPage {
        readings: entries
            .iter()
            .filter(|entry| entry.claimed)
            .map(|entry| entry.id)
            .collect(),
        next: last.map(|entry| Cursor::at(entry.next_attempt_at, entry.id)),
    }
}

/// Reads entries of the index, chooses those that match, and claims them for the batch: three steps of one statement.
fn statement(batch: &Batch, step: ClaimStep) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("WITH entry AS MATERIALIZED (");
    let unminted = UnmintedQuery {
        source: step.source,
        filter: &batch.filter,
        accepted_until: batch.requested_at,
        after: step.after,
        rows_max: step.window,
    };
    unminted.push(&mut query, "SELECT id, meter, next_attempt_at ");
    push_matching(&mut query, step);
    push_claimed(&mut query, batch.id);
    query
}

fn push_matching(query: &mut QueryBuilder<Postgres>, step: ClaimStep) {
    query.push(
        "), matching AS (
             SELECT reading.id
             FROM entry
             JOIN readings AS reading ON reading.id = entry.id ",
    );
    query.push(match step.source {
        ClaimSource::Stragglers => "JOIN meters AS meter ON meter.id = entry.meter ",
        ClaimSource::Pending | ClaimSource::Failed => "",
    });
    query
        .push("WHERE reading.state = ")
        .push(step.source.state_literal());
    query.push(match step.source {
        ClaimSource::Stragglers => {
            "
               -- The stored settings and not a copy in this process: the sweep after a toggle may run before a copy is updated.
               AND meter.rollout_bucket < (
                   SELECT CASE WHEN auto_mint_enabled THEN auto_mint_percentage ELSE 0 END
                   FROM settings
               )
               AND NOT EXISTS (
                   SELECT
                   FROM apalis.jobs AS job
                   WHERE job.job_type = 'MintReading'
                     AND job.idempotency_key = entry.id::TEXT
                     AND (job.status IN ('Pending', 'Queued', 'Running')
                          OR (job.status = 'Failed' AND job.attempts < job.max_attempts))
                   -- Keeps it one probe of the unique index for each reading, never a join with the whole queue.
                   OFFSET 0
               )"
        }
        ClaimSource::Pending | ClaimSource::Failed => "",
    });
    query
        .push(" ORDER BY entry.next_attempt_at, entry.id LIMIT ")
        .push_bind(i64::from(step.page))
        .push(
            "
             -- A transaction that records or refuses one of them right now has locked it: that reading needs no claim.
             FOR NO KEY UPDATE OF reading SKIP LOCKED",
        );
}

fn push_claimed(query: &mut QueryBuilder<Postgres>, batch: Uuid) {
    query
        .push(
            "
         ), claimed AS (
             INSERT INTO batch_readings (batch, reading)
             SELECT ",
        )
        .push_bind(batch)
        .push(
            ", id
             FROM matching
             ON CONFLICT DO NOTHING
             RETURNING reading
         )
         SELECT entry.id, entry.next_attempt_at, matching.id IS NOT NULL AS matches,
                claimed.reading IS NOT NULL AS claimed
         FROM entry
         LEFT JOIN matching ON matching.id = entry.id
         LEFT JOIN claimed ON claimed.reading = entry.id
         ORDER BY entry.next_attempt_at, entry.id",
        );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.` does not match, `m` matches and was in the batch before, `c` is claimed.
    fn index_entries(entries: &str) -> Vec<IndexEntry> {
        entries
            .chars()
            .zip(1_u128..)
            .map(|(entry, id)| IndexEntry {
                id: Uuid::from_u128(id),
                next_attempt_at: DateTime::UNIX_EPOCH,
                matches: entry != '.',
                claimed: entry == 'c',
            })
            .collect()
    }

    #[test]
    fn a_pass_continues_behind_the_entries_that_were_decided() {
        for (entries, claimed, next) in [
            // A page of two is full: the fourth entry was not decided.
            ("c.c.", 2, Some(3)),
            ("c.m.", 1, Some(3)),
            // The window of four is full.
            (".c..", 1, Some(4)),
            ("....", 0, Some(4)),
            // The end of the index.
            ("c.", 1, None),
            ("", 0, None),
        ] {
            let page = claimed_page(&index_entries(entries), 4, 2);
            assert_eq!(page.readings.len(), claimed, "{entries}");
            let behind = page.next.map(|cursor| cursor.reading.as_u128());
            assert_eq!(behind, next, "{entries}");
        }
    }
}
