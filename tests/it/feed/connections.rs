//! The requirements and limits of a connection to the feed: a token, a permit, a pace, and reading what it requested.

use std::time::Duration;

use gridtokenx::meters::Role;
use gridtokenx::outbox::{Event, EventFields, EventType};
use serde_json::json;

use crate::support::client::{brief_token, token};
use crate::support::events::{event_of, events_of, last_seq, publish};
use crate::support::feed_client::reason_of;
use crate::support::metrics::value;
use crate::support::{Api, FeedClient, Grid, Next, eventually};

const SILENCE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_requires_a_valid_token() {
    let mut grid = Grid::start().await;
    let url = grid.api_url();
    publish(&grid.pool, &events_of("anna", 1)).await;

    for bad in ["Bearer nonsense", "bearer a.b.c"] {
        let refused = FeedClient::connect(&url, &[("authorization", bad)]).await;
        assert_eq!(refused.err(), Some(401), "{bad:?}");
    }
    for first in [
        json!({"type": "auth", "token": "nonsense"}),
        json!({"type": "auth"}),
        json!({"type": "resume", "after": 0}),
    ] {
        let mut client = FeedClient::connect(&url, &[]).await.unwrap();
        client.send_json(first.clone()).await;
        assert_eq!(client.closed().await.0, 4401, "{first}");
    }
    // A client that sends nothing.
    let mut silent = FeedClient::connect(&url, &[]).await.unwrap();
    assert_eq!(silent.closed().await.0, 4401);

    // As a browser authenticates.
    let mut browser = FeedClient::connect(&url, &[]).await.unwrap();
    browser.expect_silence_for(SILENCE).await;
    browser
        .send_json(json!({"type": "auth", "token": token("anna", Role::User)}))
        .await;
    assert_eq!(browser.message().await["type"], "hello");
    browser
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    assert_eq!(browser.seq().await, 1);

    // A stream ends with its token.
    let brief = brief_token("anna", Role::User, Duration::from_secs(3));
    let mut client = FeedClient::with_token(&url, &brief).await;
    assert_eq!(client.message().await["type"], "hello");
    assert_eq!(
        client.closed().await,
        (4401, json!({"reason": "token_expired"}))
    );

    // A stream ends with its process, too.
    grid.stop().await;
    assert_eq!(browser.closed().await.0, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_token_is_required_an_anonymous_client_sees_no_users_events() {
    let grid = Grid::start_with(&[
        ("WEBSOCKET_AUTH_REQUIRED", "false"),
        ("CORS_ORIGINS", "https://grid.example"),
    ])
    .await;
    let url = grid.api_url();
    let mut anonymous = FeedClient::connect(&url, &[("origin", "https://grid.example")])
        .await
        .unwrap();
    assert_eq!(anonymous.message().await["type"], "hello");
    anonymous
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    publish(
        &grid.pool,
        &[
            event_of("anna", EventType::TokensMinted, "x"),
            Event::new(EventType::AdminNotification, &EventFields::default()),
            Event::new(EventType::BatchMintingCompleted, &EventFields::default()),
        ],
    )
    .await;
    assert_eq!(anonymous.seq().await, 3);
    let foreign = FeedClient::connect(&url, &[("origin", "https://evil.example")]).await;
    assert_eq!(foreign.err(), Some(403));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_are_limited_and_counted_exactly() {
    let grid = Grid::without_service(&[("WEBSOCKET_MAX_CONNECTIONS", "2")]).await;
    let server = grid.spawn(&[]).await;
    let (url, operator) = (server.api_url.clone(), server.admin());
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let headers = [("authorization", bearer.as_str())];
    let (first, _) = FeedClient::open(&url, "anna", Role::User).await;
    // A client that has not authenticated counts too.
    let _second = FeedClient::connect(&url, &[]).await.unwrap();
    assert_eq!(FeedClient::connect(&url, &headers).await.err(), Some(503));
    for (series, counted) in [
        ("gridtokenx_websocket_connections_active", 2.0),
        ("gridtokenx_websocket_connections_total", 2.0),
        ("gridtokenx_feed_streams_refused_total", 1.0),
        ("gridtokenx_sse_streams_active", 0.0),
    ] {
        assert_eq!(value(&operator, series).await, counted, "{series}");
    }
    drop(first);
    let listen = reqwest::Client::new()
        .get(format!("{url}/api/events/stream"))
        .bearer_auth(token("anna", Role::User));
    let stream = eventually("a stream is permitted", async || {
        let stream = listen.try_clone().unwrap().send().await.unwrap();
        (stream.status() == 200).then_some(stream)
    })
    .await;
    let gone = r#"gridtokenx_websocket_closes_total{reason="gone"}"#;
    assert_eq!(value(&operator, gone).await, 1.0);
    for open in [
        "gridtokenx_sse_streams_active",
        "gridtokenx_sse_streams_total",
    ] {
        assert_eq!(value(&operator, open).await, 1.0, "{open}");
    }
    drop(stream);
    eventually("the stream is gone", async || {
        (value(&operator, "gridtokenx_sse_streams_active").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_pace_a_client_gets_the_waiting_events_in_one_frame() {
    // Ten at once, then one every six seconds.
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "10")]).await;
    let mut client = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    for seq in 1..=10 {
        publish(&grid.pool, &events_of("anna", 1)).await;
        assert_eq!(client.seq().await, seq);
    }
    for _ in 0..30 {
        publish(&grid.pool, &events_of("anna", 1)).await;
    }
    for seq in 11..=40 {
        assert_eq!(client.seq().await, seq);
    }
    // Hello, the ten, and two or three more on a slow machine.
    assert!(client.frames.len() <= 14, "{:?}", client.frames);
    assert_eq!(client.frames.iter().sum::<usize>(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_closes_no_client_that_reads() {
    let grid = Grid::start_with(&[("WEBSOCKET_EVENT_BUFFER_SIZE", "10")]).await;
    let mut client = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    for _ in 0..3 {
        publish(&grid.pool, &events_of("anna", 3_000)).await;
    }
    for seq in 1..=9_000 {
        assert_eq!(client.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_with_its_last_number_and_resumes_from_there() {
    let grid = Grid::without_service(&[
        ("WEBSOCKET_EVENT_BUFFER_SIZE", "100"),
        ("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000"),
    ])
    .await;
    let server = grid.spawn(&[]).await;
    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 0).await;
    let reason = "x".repeat(20_000);
    let big = vec![event_of("anna", EventType::MintFailed, &reason); 100];
    let operator = Api::new(&server.api_url, "an admin", Role::Admin);
    eventually("the service closes the stream", async || {
        publish(&grid.pool, &big).await;
        let metrics = operator.get_text("/metrics").await;
        metrics
            .lines()
            .any(|line| line == "gridtokenx_websocket_errors_total 1")
            .then_some(())
    })
    .await;
    let mut seen = 0;
    let (code, reason) = loop {
        match client.next().await {
            Next::Message(message) => {
                seen += 1;
                assert_eq!(message["seq"], seen, "no silent gap");
            }
            Next::Closed(Some(close)) => break close,
            Next::Closed(None) => panic!("closed without a close frame after {seen}"),
        }
    };
    assert_eq!(code, 4408);
    assert_eq!(
        reason_of(&reason),
        json!({"reason": "too_slow", "resume_after": seen})
    );
    for (series, at_least) in [
        (
            r#"gridtokenx_websocket_closes_total{reason="too_slow"}"#,
            1.0,
        ),
        ("gridtokenx_feed_overflows_total", 1.0),
    ] {
        assert!(value(&operator, series).await >= at_least, "{series}");
    }
    let mut again = FeedClient::resumed(&server.api_url, "anna", Role::User, seen).await;
    for seq in seen + 1..=last_seq(&grid.pool).await {
        assert_eq!(again.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_within_milliseconds_of_its_commit() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let mut client = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    let mut took = Vec::new();
    for _ in 0..200 {
        publish(&grid.pool, &events_of("anna", 1)).await;
        let committed_at = std::time::Instant::now();
        client.seq().await;
        took.push(committed_at.elapsed());
    }
    took.sort();
    println!(
        "p50 {:?}, p90 {:?}, p99 {:?}",
        took[100], took[180], took[197]
    );
    // Ten times what it takes on an idle machine: it fails if delivery waits for a poll.
    assert!(took[100] < Duration::from_millis(100), "{:?}", took[100]);
}
