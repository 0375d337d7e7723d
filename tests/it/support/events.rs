//! Writes events as the service's rooms do, and reads their numbers.

use gridtokenx::outbox::{self, Event, EventFields, EventType, Topic};
use sqlx::PgPool;

use super::wait::eventually;

pub fn event_of(owner: &str, event_type: EventType, reason: &str) -> Event {
    Event::new(
        event_type,
        &EventFields {
            user_id: Some(owner.to_owned()),
            meter_id: Some(format!("meter of {owner}").replace(' ', "-")),
            error_reason: Some(reason.to_owned()),
            ..EventFields::default()
        },
    )
}

pub fn events_of(owner: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|index| event_of(owner, EventType::MeterReadingReceived, &index.to_string()))
        .collect()
}

/// Publishes events in one transaction.
pub async fn publish(pool: &PgPool, events: &[Event]) {
    let mut transaction = pool.begin().await.unwrap();
    outbox::publish(&mut transaction, events).await.unwrap();
    outbox::notify(&mut transaction, Topic::Outbox)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

pub async fn last_seq(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT last_seq FROM feed_head")
        .fetch_one(pool)
        .await
        .unwrap()
}

pub async fn until_numbered(pool: &PgPool, seq: i64) {
    eventually(&format!("{seq} events are numbered"), async || {
        (last_seq(pool).await == seq).then_some(())
    })
    .await;
}

/// Waits until every committed event has a number.
pub async fn until_outbox_is_empty(pool: &PgPool) {
    eventually("all events are numbered", async || {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(pool)
            .await
            .unwrap();
        (waiting == 0).then_some(())
    })
    .await;
}

pub async fn numbers_of(pool: &PgPool, owner: &str) -> Vec<i64> {
    sqlx::query_scalar("SELECT seq FROM events WHERE user_id = $1 ORDER BY seq")
        .bind(owner)
        .fetch_all(pool)
        .await
        .unwrap()
}
