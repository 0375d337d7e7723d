//! Streams are authenticated: by tokens in headers and protocols, single-use tickets, origins; and that no secret reaches a log.

use std::time::Duration;

use gridtokenx::meters::Role;
use serde_json::{Value, json};

use crate::support::client::{brief_token, token};
use crate::support::events::{events_of, publish};
use crate::support::schema;
use crate::support::{Api, FeedClient, Grid, RawWebSocket, eventually};

async fn ticket(api: &Api) -> String {
    let answer = api.post("/api/ws/ticket", &json!({})).await.ok();
    let expires_at = answer["expires_at"].as_str().unwrap();
    let expires_at: chrono::DateTime<chrono::Utc> = expires_at.parse().unwrap();
    let left = expires_at - chrono::Utc::now();
    assert!((1..=31).contains(&left.num_seconds()), "{left}");
    answer["ticket"].as_str().unwrap().to_owned()
}

/// Opens a stream with this query; `Err` is the status of the refusal.
async fn with_query(url: &str, query: &str) -> Result<FeedClient, u16> {
    FeedClient::connect_at(url, &format!("/ws?{query}"), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_stream_on_any_process_as_its_owner() {
    let grid = Grid::start().await;
    let other = grid.spawn(&[]).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    publish(&grid.pool, &events_of("ben", 1)).await;
    let url = grid.api_url();

    // Issued here, redeemed there.
    let issued = ticket(&grid.user("anna")).await;
    let mut client = with_query(&other.api_url, &format!("ticket={issued}"))
        .await
        .unwrap();
    assert_eq!(client.message().await["type"], "hello");
    client
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    let event = client.message().await;
    assert_eq!(event["user_id"], "anna");
    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(client.message().await["seq"], 4, "none of ben's");
    for url in [&url, &other.api_url] {
        let again = with_query(url, &format!("ticket={issued}")).await;
        assert_eq!(again.err(), Some(401), "a ticket is valid once");
    }

    // Of many clients that use one ticket at the same time, one succeeds.
    let issued = ticket(&grid.user("anna")).await;
    let tries: Vec<_> = (0..10)
        .map(|index| {
            let url = [&url, &other.api_url][index % 2].clone();
            let query = format!("ticket={issued}");
            tokio::spawn(async move { with_query(&url, &query).await.err() })
        })
        .collect();
    let mut refused = 0;
    for outcome in tries {
        match outcome.await.unwrap() {
            None => {}
            Some(status) => {
                assert_eq!(status, 401);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 9);

    // A ticket of an admin has an admin's rights.
    let issued = ticket(&grid.admin()).await;
    let mut client = with_query(&url, &format!("ticket={issued}")).await.unwrap();
    assert_eq!(client.message().await["type"], "hello");
    client
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    for seq in 1..=4 {
        assert_eq!(client.seq().await, seq);
    }

    // Invented tickets, and one that is too old.
    for bad in ["", "nonsense", &"x".repeat(43), "%00"] {
        let refused = with_query(&url, &format!("ticket={bad}")).await.err();
        assert!(matches!(refused, Some(400 | 401)), "{bad}: {refused:?}");
    }
    let issued = ticket(&grid.user("anna")).await;
    sqlx::query("UPDATE feed_tickets SET expires_at = now() - INTERVAL '1 second'")
        .execute(&grid.pool)
        .await
        .unwrap();
    let late = with_query(&url, &format!("ticket={issued}")).await;
    assert_eq!(late.err(), Some(401));
    // Issuing the next one deletes the expired one.
    ticket(&grid.user("ben")).await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM feed_tickets")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subjects_unused_tickets_are_limited_independently_of_others() {
    let grid = Grid::start().await;
    let asked: Vec<_> = (0..30)
        .map(|_| {
            let api = grid.user("anna");
            tokio::spawn(async move { api.post("/api/ws/ticket", &json!({})).await })
        })
        .collect();
    let mut issued = 0;
    for answer in asked {
        let answer = answer.await.unwrap();
        match answer.status {
            200 => issued += 1,
            status => assert_eq!(status, 429, "{answer:?}"),
        }
    }
    assert_eq!(issued, 20);
    ticket(&grid.user("ben")).await;
    let hashes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM feed_tickets")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    assert_eq!(hashes.len(), 21);
    let anonymous = reqwest::Client::new()
        .post(format!("{}/api/ws/ticket", grid.api_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_server_sent_events_and_they_end_with_the_token() {
    let grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 2)).await;
    let mut brief = grid.user("anna");
    brief.token = brief_token("anna", Role::User, Duration::from_secs(3));
    let issued = ticket(&brief).await;
    let url = format!(
        "{}/api/events/stream?after=0&ticket={issued}",
        grid.api_url()
    );
    let stream = reqwest::get(&url).await.unwrap();
    assert_eq!(stream.status(), 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(stream.headers()[name], value);
    }
    // It ends when the token expires, three seconds after it was issued.
    let text = stream.text().await.unwrap();
    schema::check_stream(&text);
    assert!(
        text.contains("\nid: 1\n") && text.contains("\nid: 2\n"),
        "{text}"
    );
    let end = text.split("\n\n").filter(|event| !event.is_empty()).last();
    assert_eq!(
        end,
        Some(
            "event: end\nretry: 2000\ndata: {\"type\":\"end\",\"reason\":\"token_expired\",\"retry_after_ms\":2000}"
        )
    );
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 401);
    let bare = reqwest::get(format!("{}/api/events/stream", grid.api_url())).await;
    assert_eq!(bare.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_among_the_subprotocols_is_accepted_and_not_echoed() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    let offer = |token: &str| format!("gridtokenx, bearer.{token}");
    let good = offer(&token("anna", Role::User));
    let mut socket = RawWebSocket::open(&url, "/ws", &[("sec-websocket-protocol", &good)])
        .await
        .unwrap();
    assert_eq!(socket.headers["sec-websocket-protocol"], "gridtokenx");
    assert_eq!(socket.message().await["type"], "hello");
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let socket = RawWebSocket::open(
        &url,
        "/ws",
        &[
            ("sec-websocket-protocol", "chat, gridtokenx"),
            ("authorization", &bearer),
        ],
    )
    .await
    .unwrap();
    assert_eq!(socket.headers["sec-websocket-protocol"], "gridtokenx");
    let socket = RawWebSocket::open(
        &url,
        "/ws",
        &[
            ("sec-websocket-protocol", "chat"),
            ("authorization", &bearer),
        ],
    )
    .await
    .unwrap();
    assert!(!socket.headers.contains_key("sec-websocket-protocol"));
    for (protocols, status) in [
        (offer("a.b.c"), 401),
        (format!("bearer.{}", token("anna", Role::User)), 400),
        (format!("{good}, bearer.a.b.c"), 400),
    ] {
        let refused =
            RawWebSocket::open(&url, "/ws", &[("sec-websocket-protocol", &protocols)]).await;
        assert_eq!(refused.err().unwrap().0, status, "{protocols}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_url_or_header_reaches_the_log() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[("LOG_LEVEL", "trace")]).await;
    let url = &server.api_url;
    let secret = token("anna", Role::User);
    let issued = ticket(&server.user("anna")).await;
    for path in ["/ws", "/api/events/stream"] {
        for name in ["token", "access_token", "ticket", "x"] {
            let refused = reqwest::get(format!("{url}{path}?{name}={secret}"))
                .await
                .unwrap();
            let is_upgrade = path == "/ws" && refused.status() == 426;
            assert!(refused.status() == 400 || is_upgrade, "{path} {name}");
            let body: Value = refused.json().await.unwrap();
            assert!(!body.to_string().contains(&secret), "{body}");
        }
        let refused = RawWebSocket::open(url, &format!("{path}?token={secret}"), &[]).await;
        let (status, problem) = refused.err().unwrap();
        assert_eq!(status, 400);
        assert!(
            problem["error"]
                .as_str()
                .unwrap()
                .contains("a token in a URL is never accepted")
        );
    }
    let mut client = with_query(url, &format!("ticket={issued}")).await.unwrap();
    assert_eq!(client.message().await["type"], "hello");
    let offer = format!("gridtokenx, bearer.{secret}");
    RawWebSocket::open(url, "/ws", &[("sec-websocket-protocol", &offer)])
        .await
        .unwrap();
    let mut client = FeedClient::connect(url, &[]).await.unwrap();
    client
        .send_json(json!({"type": "auth", "token": secret}))
        .await;
    assert_eq!(client.message().await["type"], "hello");
    eventually("the requests are logged", async || {
        (server.log().matches("/ws").count() > 5).then_some(())
    })
    .await;
    let log = server.log();
    for secret in [secret.as_str(), issued.as_str()] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_cors_origins_only_the_services_own_pages_may_listen() {
    let grid = Grid::start().await;
    let url = grid.api_url();
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let opens = async |origin: Option<&str>| {
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        RawWebSocket::open(&url, "/ws", &headers)
            .await
            .err()
            .map(|refusal| refusal.0)
    };
    assert_eq!(opens(None).await, None);
    assert_eq!(opens(Some(&url)).await, None);
    for foreign in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(opens(Some(foreign)).await, Some(403), "{foreign}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_a_handshake_is_answered_with_what_is_missing() {
    let grid = Grid::start().await;
    let http = reqwest::Client::new();
    let url = format!("{}/ws", grid.api_url());
    let upgrade = |version: &'static str, key: &'static str| {
        http.get(&url)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", version)
            .header("sec-websocket-key", key)
    };
    let plain = http.get(&url).send().await.unwrap();
    assert_eq!(plain.status(), 426);
    assert_eq!(plain.headers()["sec-websocket-version"], "13");
    assert_eq!(plain.headers()["upgrade"], "websocket");
    let old = upgrade("8", "dGhlIHNhbXBsZSBub25jZQ==")
        .send()
        .await
        .unwrap();
    assert_eq!(old.status(), 426);
    for key in ["", "short", "AAAA"] {
        let refused = upgrade("13", key).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{key:?}");
    }
    let posted = http.post(&url).send().await.unwrap();
    assert_eq!(posted.status(), 405);
}
