//! The partitions of `events`: adjacent ranges of numbers, the last ones empty for future numbers.
//!
//! They are read from the catalog, never computed, because ranges differ in width. A transaction that changes or drops a range
//! takes the row lock on `feed_head` first, as the sequencer does, so that no event is numbered meanwhile; making a partition
//! takes no lock that blocks readers or writers.

use std::time::Duration;

use crate::db;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::event::Seq;

/// Narrowest range: a partition with fewer events exists only where retention cuts a feed by time.
const SEQS_MIN: i64 = 200_000;
/// Widest range. At a thousand events per second a partition is full after three hours, and a month takes some 260 partitions,
/// which Postgres plans for in a millisecond or two; dropping one frees some five gigabytes.
const SEQS_MAX: i64 = 10_000_000;
/// Numbers beyond the newest one that always have a partition: at ten thousand events per second, operators have a minute and a
/// half to notice that no partition can be made.
const SEQS_AHEAD: i64 = 1_000_000;

/// One partition, for the numbers from `from` to just below `to`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Partition {
    pub name: String,
    #[sqlx(rename = "from_seq")]
    pub from: i64,
    #[sqlx(rename = "to_seq")]
    pub to: i64,
}

impl Partition {
    pub fn holds(&self, seq: Seq) -> bool {
        (self.from..self.to).contains(&seq.get())
    }
}

/// All attached partitions, in the order of their numbers.
pub(super) async fn attached(connection: &mut PgConnection) -> sqlx::Result<Vec<Partition>> {
    sqlx::query_as(
        r"SELECT name, (bounds[1])::BIGINT AS from_seq, (bounds[2])::BIGINT AS to_seq
          FROM (
              SELECT child.relname::TEXT AS name,
                     regexp_match(
                         pg_get_expr(child.relpartbound, child.oid),
                         'FROM \(''(\d+)''\) TO \(''(\d+)''\)'
                     ) AS bounds
              FROM pg_inherits
              JOIN pg_class AS child ON child.oid = inhrelid
              WHERE inhparent = 'events'::REGCLASS
          ) AS partitions
          -- A partition that was dropped since this statement started has no bounds.
          WHERE bounds IS NOT NULL
          ORDER BY from_seq",
    )
    .fetch_all(connection)
    .await
}

/// How many numbers the feed assigned in the last such time.
pub(super) async fn pace(
    connection: &mut PgConnection,
    last_seq: Seq,
    time: Duration,
) -> sqlx::Result<i64> {
    let oldest_seq: i64 = sqlx::query_scalar("SELECT oldest_seq FROM feed_head")
        .fetch_one(&mut *connection)
        .await?;
    // Binary search for the number that was the newest one that long ago: times rise with the numbers. Events that were dropped
    // count as older.
    let (mut older, mut newer): (i64, i64) = (oldest_seq - 1, last_seq.get() + 1);
    while newer - older > 1 {
        let middle = older + (newer - older) / 2;
        let is_younger: Option<bool> = sqlx::query_scalar(
            "SELECT sequenced_at > clock_timestamp() - $2
             FROM events
             WHERE seq >= $1
             ORDER BY seq
             LIMIT 1",
        )
        .bind(middle)
        .bind(time)
        .fetch_optional(&mut *connection)
        .await?;
        if is_younger == Some(false) {
            older = middle;
        } else {
            newer = middle;
        }
    }
    Ok(last_seq.get() + 1 - newer)
}

/// The width of a partition for a feed that assigns this many numbers in the time that one partition should cover.
pub(super) fn width(pace: i64) -> i64 {
    pace.clamp(SEQS_MIN, SEQS_MAX)
}

/// Makes partitions until [`SEQS_AHEAD`] numbers after `last_seq` have one. Returns the first number without a partition. `span`
/// is the time that one partition should cover.
pub(super) async fn make_ahead(pool: &PgPool, last_seq: Seq, span: Duration) -> sqlx::Result<Seq> {
    let mut connection = pool.acquire().await?;
    let mut end = attached(&mut connection)
        .await?
        .last()
        .map_or(0, |last| last.to);
    if !is_running_out(last_seq, end) {
        return Ok(Seq::from_stored(end));
    }
    let width = width(pace(&mut connection, last_seq, span).await?);
    drop(connection);
    while is_running_out(last_seq, end) {
        make(pool, end, end + width).await?;
        tracing::info!(from = end, to = end + width, "made a partition of events");
        end += width;
    }
    Ok(Seq::from_stored(end))
}

fn is_running_out(last_seq: Seq, end: i64) -> bool {
    end - last_seq.get() <= SEQS_AHEAD
}

/// Whether [`make_ahead`] must be called again; `until` is what it returned.
pub(super) fn are_running_out(last_seq: Seq, until: Seq) -> bool {
    is_running_out(last_seq, until.get())
}

async fn make(pool: &PgPool, from: i64, to: i64) -> sqlx::Result<()> {
    let name = name(from);
    let mut transaction = db::begin(pool).await?;
    // Created as a table and then attached: CREATE … PARTITION OF would lock `events` against its readers.
    execute(
        &mut transaction,
        format!("CREATE TABLE {name} (LIKE events INCLUDING ALL)"),
    )
    .await?;
    attach(&mut transaction, &name, from, to).await?;
    transaction.commit().await
}

/// Ends `partition` at `at` and makes the rest of its range, which must be empty, into another one; into two if the rest is much
/// wider than `width`. Locks `events`; Postgres reads the whole partition to prove that no event lies beyond `at`.
pub(super) async fn cut(
    transaction: &mut PgConnection,
    partition: &Partition,
    at: i64,
    width: i64,
) -> sqlx::Result<()> {
    let Partition { name, from, to } = partition;
    execute(
        transaction,
        format!("ALTER TABLE events DETACH PARTITION {name}"),
    )
    .await?;
    attach(transaction, name, *from, at).await?;
    let middle = if to - at > 2 * width { at + width } else { *to };
    for (from, to) in [(at, middle), (middle, *to)] {
        if from < to {
            let name = self::name(from);
            execute(
                transaction,
                format!(
                    "CREATE TABLE {name} PARTITION OF events FOR VALUES FROM ({from}) TO ({to})"
                ),
            )
            .await?;
        }
    }
    Ok(())
}

/// Drops a partition with all its events. Locks `events`.
pub(super) async fn remove(
    transaction: &mut PgConnection,
    partition: &Partition,
) -> sqlx::Result<()> {
    execute(transaction, format!("DROP TABLE {}", partition.name)).await
}

fn name(from: i64) -> String {
    format!("events_from_{from}")
}

async fn attach(connection: &mut PgConnection, name: &str, from: i64, to: i64) -> sqlx::Result<()> {
    execute(
        connection,
        format!("ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"),
    )
    .await
}

/// Table names and bounds cannot be bound as parameters. These names come from this file, and the bounds are numbers.
async fn execute(connection: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(statement))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_width_follows_the_pace_within_bounds() {
        assert_eq!(width(0), SEQS_MIN);
        assert_eq!(width(1_000_000), 1_000_000);
        // A thousand events a second, a day.
        assert_eq!(width(86_400_000), SEQS_MAX);
    }
}
