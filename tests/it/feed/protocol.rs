//! The protocol of the feed: its requests, its answers, and the schema that describes them.

use std::collections::BTreeSet;
use std::time::Duration;

use gridtokenx::meters::Role;
use gridtokenx::outbox::{Event, EventFields, EventType};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::events::{event_of, publish};
use crate::support::schema::{self, allows_client_message};
use crate::support::{FeedClient, Grid};

const SILENCE: Duration = Duration::from_millis(300);

fn energy(kwh: &str) -> Event {
    Event::new(
        EventType::MeterReadingReceived,
        &EventFields {
            user_id: Some("anna".to_owned()),
            meter_id: Some("m-1".to_owned()),
            kwh_amount: Some(kwh.to_owned()),
            ..EventFields::default()
        },
    )
}

/// Sends a ping and waits for its answer: every request before it is in force then.
async fn settle(client: &mut FeedClient) {
    client.send_json(json!({"type": "ping"})).await;
    assert_eq!(client.message().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sends_what_the_client_subscribed_to_until_it_unsubscribes() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let (mut client, _) = FeedClient::open(&grid.api_url(), "anna", Role::User).await;
    client
        .send_json(json!({"type": "subscribe", "min_amount": "1.5", "meters": ["m-1"]}))
        .await;
    settle(&mut client).await;
    let failed = || event_of("anna", EventType::MintFailed, "x");
    publish(
        &grid.pool,
        &[
            energy("1.499999999999999999"),
            energy("1.5"),
            failed(),
            energy("20"),
        ],
    )
    .await;
    assert_eq!(client.seq().await, 2);
    assert_eq!(client.seq().await, 4);

    client.send_json(json!({"type": "unsubscribe"})).await;
    settle(&mut client).await;
    let mut witness = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 4).await;
    publish(&grid.pool, &[energy("2"), failed()]).await;
    // The hub offers an event to all subscribers at once: what another client has received would be on its way.
    assert_eq!(witness.seq().await, 5);
    assert_eq!(witness.seq().await, 6);
    client.expect_silence_for(SILENCE).await;

    // Events that happened meanwhile are not sent: a client resumes to get them.
    client
        .send_json(json!({"type": "subscribe", "event_types": ["MintFailed"]}))
        .await;
    settle(&mut client).await;
    publish(&grid.pool, &[energy("3"), failed()]).await;
    assert_eq!(client.seq().await, 8);
    let mut again = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 4).await;
    for seq in 5..=8 {
        assert_eq!(again.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_schema_allows_are_accepted_and_others_are_rejected() {
    let grid = Grid::start().await;
    let names: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
    for (message, is_allowed) in [
        (json!({"type": "subscribe"}), true),
        (json!({"type": "subscribe", "event_types": names}), true),
        (
            json!({"type": "subscribe", "event_types": [], "meters": null}),
            true,
        ),
        (
            json!({"type": "subscribe", "meters": ["ü", "m-1"], "more": 1}),
            true,
        ),
        (json!({"type": "subscribe", "min_amount": 0.25}), true),
        (json!({"type": "subscribe", "min_amount": "0.25"}), true),
        (json!({"type": "unsubscribe"}), true),
        (json!({"type": "ping", "more": []}), true),
        (
            json!({"type": "subscribe", "event_types": ["Made up"]}),
            false,
        ),
        (
            json!({"type": "subscribe", "event_types": "TokensMinted"}),
            false,
        ),
        (json!({"type": "subscribe", "meters": [1]}), false),
        (json!({"type": "subscribe", "meters": [""]}), false),
        (
            json!({"type": "subscribe", "meters": ["m".repeat(65)]}),
            false,
        ),
        (json!({"type": "subscribe", "min_amount": 0}), false),
        (json!({"type": "subscribe", "min_amount": "-1"}), false),
        (json!({"type": "subscribe", "min_amount": "0"}), false),
        (json!({"type": "subscribe", "min_amount": "0.0"}), false),
        (json!({"type": "subscribe", "min_amount": "1."}), false),
        (
            json!({"type": "subscribe", "min_amount": format!("0.{:019}", 1)}),
            false,
        ),
        (
            json!({"type": "subscribe", "min_amount": format!("0.{:018}", 1)}),
            true,
        ),
        (
            json!({"type": "subscribe", "min_amount": "1".repeat(21)}),
            false,
        ),
        (json!({"type": "subscribe", "min_amount": 1e20}), false),
        (json!({"type": "subscribe", "meters": ["a b"]}), false),
        (json!({"type": "subscribe", "meters": ["a\u{1}"]}), false),
        (json!({"type": "subscribe", "min_amount": true}), false),
        (json!({"type": "resume"}), false),
        (json!({"type": "resume", "after": -1}), false),
        (json!({"type": "resume", "after": "1"}), false),
        (json!({"type": "resume", "after": 1.5}), false),
        (json!({"type": "made up"}), false),
        (json!({"kind": "ping"}), false),
        (json!([{"type": "ping"}]), false),
        (json!("ping"), false),
    ] {
        assert_eq!(allows_client_message(&message), is_allowed, "{message}");
        let (mut client, _) = FeedClient::open(&grid.api_url(), "anna", Role::User).await;
        client.send(Message::text(message.to_string())).await;
        client.send_json(json!({"type": "ping"})).await;
        let first = client.message().await;
        let was_accepted = first["type"] == "pong";
        assert_eq!(was_accepted, is_allowed, "{message}: {first}");
    }
    // Messages that are accepted only at the start of a stream.
    for message in [
        json!({"type": "resume", "after": 0}),
        json!({"type": "resume", "after": i64::MAX, "min_amount": 1}),
        json!({"type": "auth", "token": "a.b.c"}),
    ] {
        assert!(allows_client_message(&message), "{message}");
    }
}

#[test]
fn the_schema_and_the_page_contain_each_message_event_and_reason() {
    let definitions = schema::definitions();
    for kind in EventType::ALL {
        let name = kind.as_str();
        assert!(definitions.iter().any(|known| known == name), "{name}");
    }
    let page = include_str!("../../../docs/feed.md");
    let schema: Value =
        serde_json::from_str(include_str!("../../../docs/feed.schema.json")).unwrap();
    let words: BTreeSet<&str> = schema["$defs"]["closeReason"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason["properties"]["reason"]["const"].as_str().unwrap())
        .chain(EventType::ALL.iter().map(|kind| kind.as_str()))
        .collect();
    for word in words {
        assert!(
            page.contains(&format!("`{word}`")),
            "{word} is not in docs/feed.md"
        );
    }
    for message in [
        "hello",
        "gap",
        "error",
        "pong",
        "auth",
        "resume",
        "subscribe",
        "unsubscribe",
        "ping",
    ] {
        assert!(
            page.contains(&format!(r#""type":"{message}""#)),
            "{message}"
        );
    }
}
