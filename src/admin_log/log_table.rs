//! Appends entries and reads them, a page at a time.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool};

use super::action::AdminAction;
use super::entry::{BEFORE_THE_FIRST, LogEntry, LogNumber};
use crate::domain::Hash32;

/// Entries in one page at most.
pub const ENTRIES_PER_PAGE_MAX: u16 = 1_000;

#[derive(FromRow)]
struct Head {
    last_number: LogNumber,
    last_hash: Hash32,
}

/// Appends the action in the caller's transaction. It locks the head until that transaction ends, so the caller appends last
/// and commits at once: until then no other action can be logged.
pub async fn append(
    connection: &mut PgConnection,
    actor: &str,
    action: &AdminAction,
) -> sqlx::Result<LogNumber> {
    let head: Head = sqlx::query_as(
        "SELECT last_number, last_hash
         FROM admin_log_head
         -- One append at a time: the next entry chains to this one.
         FOR UPDATE",
    )
    .fetch_one(&mut *connection)
    .await?;
    // The database's clock, read under the lock: the same clock for all processes, and in the order of the numbers.
    let at: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&mut *connection)
        .await?;
    let mut entry = LogEntry {
        number: head.last_number.next(),
        at,
        actor: actor.to_owned(),
        action: action.name().to_owned(),
        details: action.details(),
        previous_hash: head.last_hash,
        hash: BEFORE_THE_FIRST,
    };
    entry.hash = entry.computed_hash();
    insert(connection, &entry).await?;
    Ok(entry.number)
}

async fn insert(connection: &mut PgConnection, entry: &LogEntry) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO admin_log (number, at, actor, action, details, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(entry.number)
    .bind(entry.at)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.details)
    .bind(entry.previous_hash)
    .bind(entry.hash)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE admin_log_head
         SET last_number = $1, last_hash = $2",
    )
    .bind(entry.number)
    .bind(entry.hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// At most `limit` entries after `after`, in order. `limit` is clamped to 1 to [`ENTRIES_PER_PAGE_MAX`].
pub async fn read(pool: &PgPool, after: LogNumber, limit: u16) -> sqlx::Result<Vec<LogEntry>> {
    sqlx::query_as(
        "SELECT number, at, actor, action, details, previous_hash, hash
         FROM admin_log
         WHERE number > $1
         ORDER BY number
         LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit.clamp(1, ENTRIES_PER_PAGE_MAX)))
    .fetch_all(pool)
    .await
}
