//! Stream permits are counted exactly and returned however a handshake or a connection ends; and a draining process ends its
//! streams, sends each client the time to reconnect, and does not wait for clients that do not read.

use std::collections::BTreeSet;
use std::time::Duration;

use gridtokenx::meters::Role;
use gridtokenx::outbox::{Event, EventType};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::token;
use crate::support::events::{event_of, events_of, publish};
use crate::support::raw_websocket::DEFLATE;
use crate::support::wait::LIMIT;
use crate::support::{FeedClient, Grid, RawWebSocket, Received, eventually};

/// Opens as many streams as are permitted and checks that the next one is rejected.
async fn open_all(url: &str, streams: usize) -> Vec<RawWebSocket> {
    let token = token("anna", Role::User);
    let bearer = format!("Bearer {token}");
    let mut sockets = Vec::new();
    for _ in 0..streams {
        let socket = eventually("a stream is permitted", async || {
            RawWebSocket::open(url, "/ws", &[("authorization", &bearer)])
                .await
                .ok()
        });
        sockets.push(socket.await);
    }
    let refused = RawWebSocket::open(url, "/ws", &[("authorization", &bearer)]).await;
    let (status, problem) = refused.err().expect("all permits are taken");
    assert_eq!(status, 503, "{problem}");
    let stream = reqwest::Client::new()
        .get(format!("{url}/api/events/stream"))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.status(), 503);
    assert!(stream.headers().contains_key("retry-after"));
    sockets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_is_returned_however_the_connection_ends() {
    const STREAMS_MAX: usize = 4;
    let grid = Grid::start_with(&[("WEBSOCKET_MAX_CONNECTIONS", "4")]).await;
    let url = grid.api_url();
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: {bearer}\r\n\r\n"
    );

    // Clients that disconnect without a close frame.
    drop(open_all(&url, STREAMS_MAX).await);
    // Clients that close.
    for mut socket in open_all(&url, STREAMS_MAX).await {
        socket.send_frame(0x88, b"").await;
        socket.closed().await;
    }
    // Clients that violate the protocol.
    for mut socket in open_all(&url, STREAMS_MAX).await {
        socket.send_bytes(&[0xff; 20]).await;
        assert_eq!(socket.closed().await.0, 1002);
    }
    // Clients that send half of a handshake, or disconnect between the request and its answer.
    for bytes in [&handshake.as_bytes()[..60], handshake.as_bytes()] {
        for _ in 0..3 * STREAMS_MAX {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            drop(stream);
        }
        drop(open_all(&url, STREAMS_MAX).await);
    }
    // Connections that are reset during the handshake.
    for _ in 0..3 * STREAMS_MAX {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        stream.write_all(handshake.as_bytes()).await.unwrap();
        drop(stream);
    }
    drop(open_all(&url, STREAMS_MAX).await);
    // Clients that never authenticate.
    let mut silent = Vec::new();
    for _ in 0..STREAMS_MAX {
        let socket = eventually("a stream is permitted", async || {
            RawWebSocket::open(&url, "/ws", &[]).await.ok()
        });
        silent.push(socket.await);
    }
    for socket in &mut silent {
        let (code, reason) = socket.closed().await;
        assert_eq!((code, &reason["reason"]), (4401, &json!("unauthorized")));
    }
    // Clients that are rejected before: they take no permit at all.
    for _ in 0..2 * STREAMS_MAX {
        let bad = RawWebSocket::open(&url, "/ws", &[("authorization", "Bearer x")]).await;
        assert_eq!(bad.err().unwrap().0, 401);
    }
    // Server-sent events count too.
    let http = reqwest::Client::new();
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        let stream = eventually("a stream is permitted", async || {
            let request = http.get(format!("{url}/api/events/stream"));
            let stream = request
                .header("authorization", &bearer)
                .send()
                .await
                .unwrap();
            (stream.status() == 200).then_some(stream)
        });
        streams.push(stream.await);
    }
    let refused = RawWebSocket::open(&url, "/ws", &[("authorization", &bearer)]).await;
    assert_eq!(refused.err().unwrap().0, 503);
    drop(streams);
    open_all(&url, STREAMS_MAX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_panics_returns_its_permit_and_does_not_delay_the_drain() {
    const STREAMS_MAX: usize = 4;
    // One more than there are permits, so that one that is not returned would be missed.
    const PANICS: usize = STREAMS_MAX + 1;
    let points = ["feed.stream_opened", "feed.before_frame", "api.before_sse"];
    let failpoints = points.map(|point| format!("{point}={PANICS}*panic(a defect)"));
    let grid = Grid::without_service(&[("WEBSOCKET_MAX_CONNECTIONS", "4")]).await;
    let mut server = grid
        .spawn(&[("LOG_LEVEL", "info"), ("FAILPOINTS", &failpoints.join(";"))])
        .await;
    let url = server.api_url.clone();
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let opened = async || {
        eventually("a stream is permitted", async || {
            let headers = [("authorization", bearer.as_str())];
            RawWebSocket::open(&url, "/ws", &headers).await.ok()
        })
        .await
    };

    // Before the first message.
    for _ in 0..PANICS {
        assert_eq!(opened().await.next().await, Received::End);
    }
    drop(open_all(&url, STREAMS_MAX).await);
    // While events are sent.
    for _ in 0..PANICS {
        let mut socket = opened().await;
        assert_eq!(socket.message().await["type"], "hello");
        socket.send_json(json!({"type": "subscribe"})).await;
        publish(&grid.pool, &events_of("anna", 1)).await;
        assert_eq!(socket.next().await, Received::End);
    }
    drop(open_all(&url, STREAMS_MAX).await);
    let stream = reqwest::Client::new()
        .get(format!("{url}/api/events/stream?after=0"))
        .header("authorization", &bearer);
    for _ in 0..PANICS {
        eventually("a stream opens and is cut off", async || {
            let answer = stream.try_clone().unwrap().send().await;
            match answer {
                Ok(answer) if answer.status() == 503 => None,
                Ok(answer) => {
                    let text = tokio::time::timeout(LIMIT, answer.text()).await;
                    text.expect("it ends").err().map(drop)
                }
                // Cut off before its head was written.
                Err(_) => Some(()),
            }
        })
        .await;
    }
    drop(open_all(&url, STREAMS_MAX).await);

    // A client that connects afterwards misses nothing.
    let mut client = eventually("a stream is permitted", async || {
        FeedClient::connect(&url, &[("authorization", &bearer)])
            .await
            .ok()
    })
    .await;
    assert_eq!(client.message().await["type"], "hello");
    client
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    for seq in 1..=PANICS as i64 {
        assert_eq!(client.seq().await, seq);
    }
    let ended = server.terminate().await;
    assert!(ended.success(), "{ended}");
    let log = server.log();
    assert!(log.contains("complete=true"), "{log}");
    assert_eq!(log.matches("a defect").count(), points.len() * PANICS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_process_ends_its_streams_one_after_the_other_and_loses_nothing() {
    let grid = Grid::without_service(&[("SHUTDOWN_TIMEOUT_SECS", "10")]).await;
    let mut server = grid.spawn(&[("LOG_LEVEL", "info")]).await;
    const STREAMS: usize = 300;
    let mut all = Vec::new();
    for _ in 0..STREAMS {
        let (client, _) = FeedClient::open(&server.api_url, "anna", Role::User).await;
        all.push(client);
    }
    // A client that has sent nothing yet, and server-sent events.
    let mut silent = RawWebSocket::open(&server.api_url, "/ws", &[])
        .await
        .unwrap();
    let stream = reqwest::Client::new()
        .get(format!("{}/api/events/stream", server.api_url))
        .bearer_auth(token("anna", Role::User))
        .send()
        .await
        .unwrap();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut retry_times = BTreeSet::new();
    for client in &mut all {
        let (code, reason) = client.closed().await;
        assert_eq!((code, &reason["reason"]), (1001, &json!("going_away")));
        retry_times.insert(reason["retry_after_ms"].as_u64().unwrap());
    }
    // Spread over a second and more.
    assert!(retry_times.len() > STREAMS / 4, "{retry_times:?}");
    let (first, last) = (retry_times.first().unwrap(), retry_times.last().unwrap());
    assert!(*first >= 200 && *last <= 4_000, "{first} {last}");
    assert_eq!(silent.closed().await.0, 1001);
    let text = stream.text().await.unwrap();
    let end = text
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .last()
        .unwrap();
    assert!(
        end.contains("\nretry: ") && end.contains("going_away"),
        "{end}"
    );
    let ended = server.ended().await;
    assert!(ended.success(), "{ended}");
    assert!(server.log().contains("complete=true"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_do_not_read_delay_neither_other_clients_nor_the_drain() {
    let grid = Grid::without_service(&[
        ("SHUTDOWN_TIMEOUT_SECS", "6"),
        ("WEBSOCKET_EVENT_BUFFER_SIZE", "10"),
        ("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000"),
    ])
    .await;
    let mut server = grid.spawn(&[("LOG_LEVEL", "info")]).await;
    let token = token("anna", Role::User);
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("sec-websocket-extensions", DEFLATE.to_owned()),
    ];
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut stuck = Vec::new();
    for _ in 0..6 {
        let mut socket = RawWebSocket::open(&server.api_url, "/ws", &headers)
            .await
            .unwrap();
        socket
            .send_json(json!({"type": "resume", "after": 0}))
            .await;
        stuck.push(socket);
    }
    // Server-sent events too.
    let address = server.api_url.strip_prefix("http://").unwrap();
    let mut unread = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/events/stream?after=0 HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    unread.write_all(request.as_bytes()).await.unwrap();
    let mut reader = RawWebSocket::compressed(&server.api_url, &token).await;
    reader
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    // Noise, which hardly compresses: more than any buffer holds unread.
    let noise: String = (0..4_000).map(|_| rand::random::<char>()).collect();
    let events = |round: usize| -> Vec<Event> {
        (0..100)
            .map(|number| {
                let reason = format!("{round} {number} {noise}");
                event_of("anna", EventType::MintFailed, &reason)
            })
            .collect()
    };
    let mut next = 1;
    for round in 0..10 {
        publish(&grid.pool, &events(round)).await;
        while next <= (round as i64 + 1) * 100 {
            for message in reader.messages().await {
                assert_eq!(message["seq"], next);
                next += 1;
            }
        }
    }
    publish(&grid.pool, &events_of("anna", 1)).await;
    // They hang until the end, and the process ends nevertheless.
    server.terminate().await;
    assert!(server.log().contains("drained"), "{}", server.log());
    drop((stuck, unread));
}
