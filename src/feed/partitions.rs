//! The partitions of `events`: ranges of numbers, side by side without a hole, the last ones empty and ready.
//!
//! What is there is read from the catalog, never computed: ranges differ in width. Whoever changes a range or drops one
//! holds the row lock on `feed_head` first, as the sequencer does, so that nobody numbers meanwhile; making one ahead takes
//! no lock that readers or writers meet.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::event::Seq;

/// Narrowest range that is made: fewer events than this pass by without a partition of their own only on a feed that
/// [`super::retention`] cuts by time.
const SEQS_MIN: i64 = 200_000;
/// Widest range that is made. At a thousand events a second a partition is full after three hours, and a month of them is
/// some 260 partitions, which Postgres plans for in a millisecond or two; a dropped one is some five gigabytes.
const SEQS_MAX: i64 = 10_000_000;
/// Numbers that stand ready beyond the newest: at ten thousand events a second, a minute and a half to notice that no
/// partition can be made.
const SEQS_AHEAD: i64 = 1_000_000;

/// One partition: it holds the numbers from `from` to just below `to`.
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

/// All that are attached, in the order of their numbers.
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
          -- One that was dropped since this statement began has no bounds.
          WHERE bounds IS NOT NULL
          ORDER BY from_seq",
    )
    .fetch_all(connection)
    .await
}

/// How many numbers the feed gives in this time, from what it gave in the last such time.
pub(super) async fn pace(
    connection: &mut PgConnection,
    last_seq: Seq,
    time: Duration,
) -> sqlx::Result<i64> {
    let oldest_seq: i64 = sqlx::query_scalar("SELECT oldest_seq FROM feed_head")
        .fetch_one(&mut *connection)
        .await?;
    // The number that was the newest one that long ago, by halving: moments rise with the numbers. What is no longer kept
    // is taken for older.
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

/// The width for a feed that gives so many numbers until it would be cut by time.
pub(super) fn width(pace: i64) -> i64 {
    pace.clamp(SEQS_MIN, SEQS_MAX)
}

/// Makes partitions until enough numbers stand ready after `last_seq`. Gives the first number for which there is no room.
/// `span` is the time that one partition is meant for.
pub(super) async fn make_ahead(pool: &PgPool, last_seq: Seq, span: Duration) -> sqlx::Result<Seq> {
    let mut connection = pool.acquire().await?;
    let mut end = attached(&mut connection)
        .await?
        .last()
        .map_or(0, |last| last.to);
    if !needs_room(last_seq, end) {
        return Ok(Seq::from_stored(end));
    }
    let width = width(pace(&mut connection, last_seq, span).await?);
    drop(connection);
    while needs_room(last_seq, end) {
        make(pool, end, end + width).await?;
        tracing::info!(from = end, to = end + width, "made a partition of events");
        end += width;
    }
    Ok(Seq::from_stored(end))
}

fn needs_room(last_seq: Seq, end: i64) -> bool {
    end - last_seq.get() <= SEQS_AHEAD
}

/// True once [`make_ahead`] is to be called again.
pub(super) fn is_short_of_room(last_seq: Seq, room_until: Seq) -> bool {
    needs_room(last_seq, room_until.get())
}

async fn make(pool: &PgPool, from: i64, to: i64) -> sqlx::Result<()> {
    let name = name(from);
    let mut transaction = pool.begin().await?;
    // Made beside and then attached: CREATE … PARTITION OF would lock out the readers of `events`.
    execute(
        &mut transaction,
        format!("CREATE TABLE {name} (LIKE events INCLUDING ALL)"),
    )
    .await?;
    attach(&mut transaction, &name, from, to).await?;
    transaction.commit().await
}

/// Ends `partition` at `at` and makes the rest of its range, which must be empty, another one; where that is much wider than
/// `width`, two. Locks `events`, reads the whole partition to prove that nothing lies behind `at`.
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

/// Drops a partition with all that it holds. Locks `events`.
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

/// Table names and bounds cannot be bound. These are our own, and numbers.
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
    fn a_partition_is_as_wide_as_the_feed_is_quick_within_bounds() {
        assert_eq!(width(0), SEQS_MIN);
        assert_eq!(width(1_000_000), 1_000_000);
        // A thousand events a second, a day.
        assert_eq!(width(86_400_000), SEQS_MAX);
    }
}
