//! The reasons with which streams are rejected or end, and the pings that distinguish a quiet client from a dead one.

use std::time::{Duration, Instant};

use gridtokenx::meters::Role;
use gridtokenx::outbox::EventType;
use serde_json::json;
use tokio::time::timeout;

use crate::support::client::{brief_token, token};
use crate::support::events::{event_of, events_of, publish, until_numbered};
use crate::support::raw_websocket::{PING, masked};
use crate::support::{FeedClient, Grid, RawWebSocket, Received};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_ends_a_stream_with_its_number() {
    let grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 3)).await;
    until_numbered(&grid.pool, 3).await;
    // It remembers no event from before its start, so a replay comes from the log.
    let server = grid.spawn(&[]).await;
    sqlx::raw_sql("ALTER TABLE events RENAME TO events_away")
        .execute(&grid.pool)
        .await
        .unwrap();
    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 1).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1013);
    assert_eq!(reason["reason"], "log_unavailable");
    assert_eq!(reason["resume_after"], 1);
    let retry_after_ms = reason["retry_after_ms"].as_u64().unwrap();
    assert!((2_000..=10_000).contains(&retry_after_ms), "{reason}");

    sqlx::raw_sql("ALTER TABLE events_away RENAME TO events")
        .execute(&grid.pool)
        .await
        .unwrap();
    let mut again = FeedClient::resumed(&server.api_url, "anna", Role::User, 1).await;
    assert_eq!(again.seq().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_beyond_its_rate_limit_learns_it_in_the_handshake_or_from_the_close_code() {
    let grid = Grid::start_with(&[("API_RATE_LIMIT", "2")]).await;
    let url = grid.api_url();
    let token = token("anna", Role::User);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    for _ in 0..2 {
        FeedClient::connect(&url, &headers).await.unwrap();
    }
    assert_eq!(FeedClient::connect(&url, &headers).await.err(), Some(429));
    let mut page = FeedClient::connect(&url, &[]).await.unwrap();
    page.send_json(json!({"type": "auth", "token": token}))
        .await;
    assert_eq!(
        page.closed().await,
        (
            4429,
            json!({"reason": "too_many_requests", "retry_after_ms": 60_000})
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_not_authenticated_may_not_flood() {
    let grid = Grid::start().await;
    let mut socket = RawWebSocket::open(&grid.api_url(), "/ws", &[])
        .await
        .unwrap();
    socket.send_bytes(&masked(PING, b"x").repeat(1_000)).await;
    let mut pongs = 0;
    let (code, reason) = loop {
        match socket.next().await {
            Received::Pong(_) => pongs += 1,
            Received::Close(code, reason) => break (code, reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 4429);
    assert_eq!(reason["reason"], "too_many_messages");
    assert_eq!(pongs, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_opens_no_stream() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    let expired = brief_token("anna", Role::User, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    // Within the clock skew that is tolerated for requests.
    let bearer = format!("Bearer {expired}");
    let protocol = format!("gridtokenx, bearer.{expired}");
    for headers in [
        [("authorization", bearer.as_str())],
        [("sec-websocket-protocol", protocol.as_str())],
    ] {
        assert_eq!(FeedClient::connect(&url, &headers).await.err(), Some(401));
    }
    let stream = reqwest::Client::new()
        .get(format!("{url}/api/events/stream"))
        .bearer_auth(&expired)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 401);
    let mut page = FeedClient::connect(&url, &[]).await.unwrap();
    page.send_json(json!({"type": "auth", "token": expired}))
        .await;
    assert_eq!(page.closed().await.0, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_client_may_authenticate_before_its_first_request() {
    let grid = Grid::start_with(&[("WEBSOCKET_AUTH_REQUIRED", "false")]).await;
    let url = grid.api_url();
    publish(&grid.pool, &events_of("anna", 1)).await;
    let mut page = FeedClient::connect(&url, &[]).await.unwrap();
    let first = page.message().await;
    assert_eq!(first["type"], "hello");
    page.send_json(json!({"type": "auth", "token": token("anna", Role::User)}))
        .await;
    assert_eq!(page.message().await["type"], "hello");
    page.send_json(json!({"type": "resume", "after": 0})).await;
    assert_eq!(page.seq().await, 1);

    let mut late = FeedClient::connect(&url, &[]).await.unwrap();
    assert_eq!(late.message().await["type"], "hello");
    late.send_json(json!({"type": "resume", "after": 0})).await;
    late.send_json(json!({"type": "auth", "token": token("anna", Role::User)}))
        .await;
    assert_eq!(late.message().await["type"], "error");

    let mut forged = FeedClient::connect(&url, &[]).await.unwrap();
    assert_eq!(forged.message().await["type"], "hello");
    forged
        .send_json(json!({"type": "auth", "token": "a.b.c"}))
        .await;
    assert_eq!(forged.closed().await.0, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_for_the_pace_are_sent_before_the_filter_changes() {
    // One event at once, then one per minute.
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "1")]).await;
    let (mut client, _) = FeedClient::open(&grid.api_url(), "anna", Role::User).await;
    client.send_json(json!({"type": "subscribe"})).await;
    client.send_json(json!({"type": "ping"})).await;
    assert_eq!(client.message().await["type"], "pong");
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(client.seq().await, 1);
    let mut witness = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 1).await;
    publish(&grid.pool, &[event_of("anna", EventType::MintFailed, "x")]).await;
    assert_eq!(witness.seq().await, 2);
    client.send_json(json!({"type": "unsubscribe"})).await;
    client.send_json(json!({"type": "ping"})).await;
    assert_eq!(client.seq().await, 2, "it passed the filter before");
    assert_eq!(client.message().await["type"], "pong");
    publish(&grid.pool, &events_of("anna", 1)).await;
    client.expect_silence_for(Duration::from_millis(500)).await;
}

/// The limits that docs/feed.md gives for a quiet stream.
const PING_WITHIN: Duration = Duration::from_secs(30);
const COMMENT_WITHIN: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_kept_alive_and_a_dead_one_is_closed() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    let token = token("anna", Role::User);
    let comment = async {
        let mut stream = reqwest::Client::new()
            .get(format!("{url}/api/events/stream"))
            .bearer_auth(&token)
            .send()
            .await
            .unwrap();
        let mut text = String::new();
        while !text.contains("\n:") {
            let chunk = stream.chunk().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    let silent = async {
        let mut socket = RawWebSocket::compressed(&url, &token).await;
        socket.answers_pings = false;
        let opened = Instant::now();
        let mut pings = Vec::new();
        while socket.next().await == Received::Ping {
            pings.push(opened.elapsed());
        }
        (pings, opened.elapsed())
    };
    let (comment, silent) = tokio::join!(
        timeout(COMMENT_WITHIN, comment),
        timeout(DEAD_AFTER, silent)
    );
    comment.expect("a comment in time");
    let (pings, ended_after) = silent.expect("the dead one is closed in time");
    assert!(pings[0] <= PING_WITHIN, "{pings:?}");
    assert!(pings.len() >= 3, "{pings:?} until {ended_after:?}");
}
