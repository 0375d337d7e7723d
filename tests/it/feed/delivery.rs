//! The feed's promise: a client that resumes after the last number it received gets each of its events once and in order, from
//! any process, or a gap for the numbers that cannot be delivered.

use std::time::Duration;

use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, Event, EventFields, EventType, Topic};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::token;
use crate::support::events::{event_of, events_of, publish, until_numbered};
use crate::support::{FeedClient, Grid, eventually};

const SILENCE: Duration = Duration::from_millis(300);

/// Waits until this process has read the number: hello contains it.
async fn until_read(api_url: &str, seq: i64) {
    eventually(&format!("the process has read event {seq}"), async || {
        let (_, position) = FeedClient::open(api_url, "another", Role::User).await;
        (position == seq).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_hangs_in_its_transaction_does_not_block_others() {
    let grid = Grid::start().await;
    let mut client = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    let mut frozen = grid.pool.begin().await.unwrap();
    outbox::publish(&mut frozen, &events_of("anna", 1))
        .await
        .unwrap();
    publish(
        &grid.pool,
        &[event_of("anna", EventType::MintFailed, "later")],
    )
    .await;
    let first = client.message().await;
    assert_eq!(first["seq"], 1);
    assert_eq!(first["error_reason"], "later");
    outbox::notify(&mut frozen, Topic::Outbox).await.unwrap();
    frozen.commit().await.unwrap();
    let second = client.message().await;
    assert_eq!(second["seq"], 2);
    assert_eq!(second["type"], "MeterReadingReceived");
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_comes_first_and_no_event_is_lost_before_the_stream_starts() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    publish(&grid.pool, &events_of("anna", 3)).await;
    until_read(&url, 3).await;
    let (mut silent, seq) = FeedClient::open(&url, "anna", Role::User).await;
    assert_eq!(seq, 3);
    let (mut subscribed, _) = FeedClient::open(&url, "anna", Role::User).await;
    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    // Nothing is sent until the client sends a message, or for five seconds; then events after hello's number.
    silent.expect_silence_for(SILENCE).await;
    subscribed.send_json(json!({"type": "subscribe"})).await;
    assert_eq!(subscribed.seq().await, 5);
    assert_eq!(silent.seq().await, 5);
    // The streams are live now: a resume is rejected and changes nothing.
    for client in [&mut silent, &mut subscribed] {
        client
            .send_json(json!({"type": "resume", "after": 0}))
            .await;
        assert_eq!(client.message().await["type"], "error");
    }
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(silent.seq().await, 6);
    assert_eq!(subscribed.seq().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_message_is_answered_with_an_error_and_the_stream_continues() {
    let grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 2)).await;
    let (mut client, _) = FeedClient::open(&grid.api_url(), "anna", Role::User).await;
    for text in [
        "nonsense",
        r#"{"type":"resume","after":-1}"#,
        r#"{"type":"resume","after":"1"}"#,
        r#"{"type":"resume"}"#,
        r#"[{"type":"resume","after":0}]"#,
        r#"{"type":"unknown"}"#,
        r#"{"type":"auth","token":"x"}"#,
        r#"{"type":"subscribe","event_types":["Nothing"]}"#,
    ] {
        client.send(Message::text(text)).await;
        let error = client.message().await;
        assert_eq!(error["type"], "error", "{text}: {error}");
        assert!(error.get("seq").is_none());
    }
    client.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(client.message().await["type"], "error");
    client
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    assert_eq!(client.seq().await, 1);
    assert_eq!(client.seq().await, 2);
    client.send(Message::text("x".repeat(64 * 1024 + 1))).await;
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_cannot_be_delivered_are_named() {
    let grid = Grid::start().await;
    let (url, anna) = (grid.api_url(), grid.user("anna"));
    publish(&grid.pool, &events_of("anna", 120)).await;
    until_numbered(&grid.pool, 120).await;
    for (query, events, gap) in [
        ("", 100, None),
        ("?after=110", 10, None),
        ("?after=120&limit=1000", 0, None),
        ("?after=500", 0, Some((121, 500))),
    ] {
        let page = anna.get(&format!("/api/events{query}")).await.ok();
        assert_eq!(page["events"].as_array().unwrap().len(), events, "{query}");
        assert_eq!(
            (&page["last_seq"], &page["oldest_seq"]),
            (&json!(120), &json!(1))
        );
        let expected = gap.map(|(from, to)| json!({"from": from, "to": to}));
        assert_eq!(page.get("gap"), expected.as_ref(), "{query}");
    }
    for query in [
        "after=-1",
        "after=x",
        "after=1.5",
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=9223372036854775808",
    ] {
        let answer = anna.get(&format!("/api/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {:?}", answer.body);
    }

    // A WebSocket client ahead of the head gets the gap, and is live from the head.
    let mut ahead = FeedClient::resumed(&url, "anna", Role::User, 500).await;
    assert_eq!(
        ahead.message().await,
        json!({"type": "gap", "from": 121, "to": 500})
    );
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(ahead.seq().await, 121);

    // Events that are no longer kept.
    sqlx::query("DELETE FROM events WHERE seq < 50")
        .execute(&grid.pool)
        .await
        .unwrap();
    sqlx::query("UPDATE feed_head SET oldest_seq = 50")
        .execute(&grid.pool)
        .await
        .unwrap();
    let page = anna.get("/api/events?after=10&limit=2").await.ok();
    assert_eq!(page["gap"], json!({"from": 11, "to": 49}));
    assert_eq!(page["events"][0]["seq"], 50);
    assert!(
        anna.get("/api/events?after=49")
            .await
            .ok()
            .get("gap")
            .is_none()
    );
    // A process that remembers them still delivers them; a new one reads the log.
    let fresh = grid.spawn(&[]).await;
    let mut late = FeedClient::resumed(&fresh.api_url, "anna", Role::User, 10).await;
    assert_eq!(
        late.message().await,
        json!({"type": "gap", "from": 11, "to": 49})
    );
    for seq in 50..=121 {
        assert_eq!(late.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_see_their_own_events_and_admins_all() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let url = grid.api_url();
    let without_owner = |event_type| Event::new(event_type, &EventFields::default());
    publish(&grid.pool, &events_of("anna", 1)).await;
    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(
        &grid.pool,
        &[
            without_owner(EventType::BatchMintingCompleted),
            without_owner(EventType::AdminNotification),
            event_of("anna", EventType::MintFailed, "x"),
        ],
    )
    .await;
    until_numbered(&grid.pool, 5).await;
    let seqs = |page: serde_json::Value| -> Vec<i64> {
        let events = page["events"].as_array().unwrap();
        events
            .iter()
            .map(|event| event["seq"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(
        seqs(grid.user("anna").get("/api/events").await.ok()),
        [1, 5]
    );
    assert_eq!(
        seqs(grid.user("carl").get("/api/events").await.ok()),
        [0i64; 0]
    );
    assert_eq!(
        seqs(grid.admin().get("/api/events").await.ok()),
        [1, 2, 3, 4, 5]
    );

    let mut anna = FeedClient::resumed(&url, "anna", Role::User, 0).await;
    let mut ben = FeedClient::resumed(&url, "ben", Role::User, 0).await;
    let mut admin = FeedClient::resumed(&url, "an admin", Role::Admin, 0).await;
    let (mut filtered, _) = FeedClient::open(&url, "an admin", Role::Admin).await;
    filtered
        .send_json(json!({"type": "resume", "after": 0, "event_types": ["MintFailed"], "meters": ["meter-of-anna"]}))
        .await;
    for (client, seqs) in [
        (&mut anna, vec![1, 5]),
        (&mut ben, vec![2]),
        (&mut admin, vec![1, 2, 3, 4, 5]),
        (&mut filtered, vec![5]),
    ] {
        for seq in seqs {
            assert_eq!(client.seq().await, seq);
        }
    }
    publish(
        &grid.pool,
        &[
            event_of("ben", EventType::MintFailed, "x"),
            event_of("anna", EventType::TokensMinted, "x"),
            event_of("anna", EventType::MintFailed, "x"),
        ],
    )
    .await;
    assert_eq!(filtered.seq().await, 8);
    assert_eq!((anna.seq().await, anna.seq().await), (7, 8));
    assert_eq!(ben.seq().await, 6);
    for client in [&mut anna, &mut ben, &mut filtered] {
        client.expect_silence_for(SILENCE).await;
    }
}

/// Reads server-sent events until the text contains `end`; `None` if the stream ended before.
async fn read_until(response: &mut reqwest::Response, end: &str) -> Option<String> {
    let mut text = String::new();
    while !text.contains(end) {
        text.push_str(std::str::from_utf8(&response.chunk().await.ok()??).unwrap());
    }
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_share_the_cursor() {
    let mut grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 3)).await;
    until_read(&grid.api_url(), 3).await;
    let open = async |query: &str, last_event_id: Option<&str>| {
        let mut request = reqwest::Client::new()
            .get(format!("{}/api/events/stream{query}", grid.api_url()))
            .bearer_auth(token("anna", Role::User));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        request.send().await.unwrap()
    };
    let mut live = open("", None).await;
    assert_eq!(live.headers()["content-type"], "text/event-stream");
    let hello = read_until(&mut live, "\n\n").await.unwrap();
    assert_eq!(
        hello,
        "id: 3\nevent: hello\ndata: {\"type\":\"hello\",\"seq\":3}\n\n"
    );
    let mut resumed = open("?after=3", Some("1")).await;
    let replayed = read_until(&mut resumed, "id: 3\n").await.unwrap();
    assert!(
        !replayed.contains("id: 1\ndata") && replayed.contains("id: 2\ndata"),
        "{replayed}"
    );
    let mut ahead = open("?after=9", None).await;
    let gap = "id: 3\nevent: gap\ndata: {\"type\":\"gap\",\"from\":4,\"to\":9}\n\n";
    read_until(&mut ahead, gap).await.unwrap();

    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    for stream in [&mut live, &mut resumed, &mut ahead] {
        let text = read_until(stream, "id: 5\n").await.unwrap();
        assert!(!text.contains("id: 4\n"), "{text}");
    }
    for (query, id) in [
        ("?after=-1", None),
        ("?after=x", None),
        ("", Some("x")),
        ("", Some("-1")),
    ] {
        assert_eq!(open(query, id).await.status(), 400, "{query} {id:?}");
    }
    grid.stop().await;
    let last = read_until(&mut live, "\nretry: ").await.unwrap();
    assert!(last.contains("event: end\n"), "{last}");
    assert_eq!(
        read_until(&mut live, "never").await,
        None,
        "it ends with its process"
    );
}
