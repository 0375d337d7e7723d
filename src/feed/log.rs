//! Pages of numbered events, and how much the log holds.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::event::{FeedEvent, Seq, StoredEvent};
use super::viewer::Viewer;

/// Numbers that cannot be delivered: their events were dropped for age, or this feed never assigned them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub from: Seq,
    /// Inclusive.
    pub to: Seq,
}

/// Events after a cursor, as a viewer sees them.
#[derive(Debug)]
pub struct EventsPage {
    /// In order; the numbers of events that this viewer may not see are missing.
    pub events: Vec<FeedEvent>,
    /// Highest number assigned so far, visible to this viewer or not.
    pub last_seq: Seq,
    /// Lowest number that is still kept.
    pub oldest_seq: Seq,
    /// Set if the cursor is ahead of `last_seq`, or before events that were dropped.
    pub gap: Option<Gap>,
    /// More events may follow right away.
    pub full: bool,
}

impl EventsPage {
    /// The position from which the next page starts: after the last event of a full page, otherwise after `last_seq`.
    pub fn next_cursor(&self) -> Seq {
        match self.events.last() {
            Some(last) if self.full => last.seq,
            _ => self.last_seq,
        }
    }
}

/// The size of the log, for metrics.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LogSize {
    /// Lowest number that is still kept.
    pub oldest_seq: i64,
    /// When that number was assigned; `None` if no event is kept.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Including empty ones for future numbers.
    pub partitions: i64,
}

impl LogSize {
    pub async fn read(pool: &PgPool) -> sqlx::Result<LogSize> {
        sqlx::query_as(
            "SELECT oldest_seq,
                    (SELECT sequenced_at FROM events WHERE seq >= oldest_seq ORDER BY seq LIMIT 1) AS oldest_at,
                    (SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::REGCLASS) AS partitions
             FROM feed_head",
        )
        .fetch_one(pool)
        .await
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    last_seq: i64,
    oldest_seq: i64,
    seq: Option<i64>,
    event_type: Option<String>,
    user_id: Option<String>,
    body: Option<String>,
    written_at: Option<DateTime<Utc>>,
}

/// At most `limit` events after `after` that `viewer` may see.
pub async fn page(
    pool: &PgPool,
    viewer: &Viewer,
    after: Seq,
    limit: u16,
) -> sqlx::Result<EventsPage> {
    // One statement, so that head and events come from one snapshot: an event up to the head is either there or was dropped.
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new(
        "SELECT head.last_seq, head.oldest_seq,
                event.seq, event.event_type, event.user_id, event.body, event.written_at
         FROM feed_head AS head
         LEFT JOIN (
             SELECT seq, event_type, user_id, body, written_at
             FROM events
             WHERE seq > ",
    );
    query.push_bind(after.get());
    viewer.push_condition(&mut query);
    query
        .push(" ORDER BY seq LIMIT ")
        .push_bind(i64::from(limit))
        .push(") AS event ON TRUE ORDER BY event.seq");
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    let head = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let last_seq = Seq::from_stored(head.last_seq);
    let oldest_seq = Seq::from_stored(head.oldest_seq);
    let events: Vec<FeedEvent> = rows.into_iter().filter_map(event_of).collect();
    Ok(EventsPage {
        gap: gap(after, last_seq, oldest_seq),
        full: events.len() == usize::from(limit),
        events,
        last_seq,
        oldest_seq,
    })
}

/// `None` for a row that carries only the head.
fn event_of(row: Row) -> Option<FeedEvent> {
    Some(FeedEvent::from(StoredEvent {
        seq: row.seq?,
        event_type: row.event_type?,
        owner: row.user_id,
        body: row.body?,
        written_at: row.written_at?,
    }))
}

fn gap(after: Seq, last_seq: Seq, oldest_seq: Seq) -> Option<Gap> {
    if after > last_seq {
        Some(Gap {
            from: last_seq.next(),
            to: after,
        })
    } else if after.next() < oldest_seq {
        Some(Gap {
            from: after.next(),
            to: oldest_seq.previous(),
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: i64) -> Seq {
        Seq::new(number).unwrap()
    }

    #[test]
    fn a_gap_names_exactly_the_numbers_that_cannot_be_delivered() {
        let gap = |after, last, oldest| {
            gap(seq(after), seq(last), seq(oldest)).map(|gap| (gap.from.get(), gap.to.get()))
        };
        // An empty feed.
        assert_eq!(gap(0, 0, 1), None);
        assert_eq!(gap(1, 0, 1), Some((1, 1)));
        // Nothing dropped.
        assert_eq!(gap(0, 10, 1), None);
        assert_eq!(gap(10, 10, 1), None);
        assert_eq!(gap(15, 10, 1), Some((11, 15)));
        // Dropped up to 99.
        assert_eq!(gap(99, 150, 100), None);
        assert_eq!(gap(98, 150, 100), Some((99, 99)));
        assert_eq!(gap(0, 150, 100), Some((1, 99)));
        // Everything dropped.
        assert_eq!(gap(150, 150, 151), None);
        assert_eq!(gap(149, 150, 151), Some((150, 150)));
        // The end of the numbers does not overflow.
        assert_eq!(gap(i64::MAX, 10, 1), Some((11, i64::MAX)));
    }
}
