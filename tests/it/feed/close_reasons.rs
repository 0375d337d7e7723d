//! How streams begin that may not, how they end, and the rhythm that tells a quiet one from a dead one.

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
    // It remembers nothing of what was before it, so a replay comes from the log.
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
async fn a_subject_that_does_too_much_is_told_so_in_the_handshake_or_by_the_close_code() {
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
async fn who_has_not_said_who_it_is_may_not_flood() {
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
async fn a_token_that_has_ended_opens_nothing() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    let ended = brief_token("anna", Role::User, Duration::from_secs(1));
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    // Within the skew that a request is granted.
    let bearer = format!("Bearer {ended}");
    let protocol = format!("gridtokenx, bearer.{ended}");
    for headers in [
        [("authorization", bearer.as_str())],
        [("sec-websocket-protocol", protocol.as_str())],
    ] {
        assert_eq!(FeedClient::connect(&url, &headers).await.err(), Some(401));
    }
    let stream = reqwest::Client::new()
        .get(format!("{url}/api/events/stream"))
        .bearer_auth(&ended)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 401);
    let mut page = FeedClient::connect(&url, &[]).await.unwrap();
    page.send_json(json!({"type": "auth", "token": ended}))
        .await;
    assert_eq!(page.closed().await.0, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_token_is_needed_one_may_be_shown_before_anything_is_asked_for() {
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
async fn what_waits_for_the_pace_is_sent_before_the_filter_changes() {
    // One at once, then one a minute.
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
    assert_eq!(client.seq().await, 2, "it was chosen before");
    assert_eq!(client.message().await["type"], "pong");
    publish(&grid.pool, &events_of("anna", 1)).await;
    client.expect_silence_for(Duration::from_millis(500)).await;
}

/// What docs/feed.md promises of a quiet stream.
const PING_WITHIN: Duration = Duration::from_secs(30);
const COMMENT_WITHIN: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_kept_alive_and_a_dead_one_is_let_go() {
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
    let (pings, ended_after) = silent.expect("the dead one is let go in time");
    assert!(pings[0] <= PING_WITHIN, "{pings:?}");
    assert!(pings.len() >= 3, "{pings:?} until {ended_after:?}");
}
