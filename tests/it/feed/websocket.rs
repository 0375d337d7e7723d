//! The WebSocket at the level of frames: compression, violations of the protocol, and that nothing a client sends harms the
//! service.

use std::time::{Duration, Instant};

use gridtokenx::meters::Role;
use gridtokenx::outbox::{Event, EventFields, EventType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::support::client::token;
use crate::support::events::{event_of, events_of, publish, until_numbered};
use crate::support::metrics::value;
use crate::support::raw_websocket::{
    CLOSE, DEFLATE, PING, TEXT, TEXT_COMPRESSED, deflated, masked,
};
use crate::support::{Grid, RawWebSocket, Received, Server, eventually};

/// Waits until no stream is open in this process, which belongs to this test alone.
async fn until_empty(server: &Server) {
    let admin = server.admin();
    eventually("no stream is open", async || {
        (value(&admin, "gridtokenx_websocket_connections_active").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_compressed_only_for_clients_that_offered_it() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let url = grid.api_url();
    let token = token("anna", Role::User);
    let bearer = format!("Bearer {token}");
    let mut compressed = RawWebSocket::compressed(&url, &token).await;
    let mut plain = RawWebSocket::open(&url, "/ws", &[("authorization", &bearer)])
        .await
        .unwrap();
    assert!(!plain.headers.contains_key("sec-websocket-extensions"));
    assert_eq!(plain.message().await["type"], "hello");
    // A client may compress its own messages, too.
    compressed
        .send_json_compressed(&json!({"type": "resume", "after": 0, "event_types": ["MintFailed"]}))
        .await;
    plain
        .send_json(json!({"type": "resume", "after": 0, "event_types": ["MintFailed"]}))
        .await;
    let reason = "the wallet's token account is frozen; ".repeat(5);
    publish(
        &grid.pool,
        &[event_of("anna", EventType::MintFailed, &reason)],
    )
    .await;
    let (text, was_compressed) = compressed.text().await;
    assert!(was_compressed);
    assert_eq!(plain.text().await, (text, false));

    // Several events in a frame: the same text, concatenated from the compressed events.
    let many: Vec<Event> = (0..300)
        .map(|number| event_of("anna", EventType::MintFailed, &format!("{number} {reason}")))
        .collect();
    publish(&grid.pool, &many).await;
    for socket in [&mut compressed, &mut plain] {
        let mut next = 2;
        while next <= 301 {
            for message in socket.messages().await {
                assert_eq!(message["seq"], next);
                next += 1;
            }
        }
    }
    compressed
        .send_json_compressed(&json!({"type": "ping"}))
        .await;
    assert_eq!(compressed.message().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_cannot_be_satisfied_or_is_switched_off_leaves_the_stream_plain() {
    let grid = Grid::start().await;
    let off = grid
        .spawn(&[("WEBSOCKET_COMPRESSION_ENABLED", "false")])
        .await;
    let bearer = format!("Bearer {}", token("anna", Role::User));
    for (url, offer) in [
        (
            grid.api_url(),
            "permessage-deflate; server_max_window_bits=9",
        ),
        (grid.api_url(), "permessage-deflate; made_up=1"),
        (off.api_url.clone(), DEFLATE),
    ] {
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-extensions", offer),
        ];
        let mut socket = RawWebSocket::open(&url, "/ws", &headers).await.unwrap();
        assert!(!socket.headers.contains_key("sec-websocket-extensions"));
        assert_eq!(socket.message().await["type"], "hello");
        // A compressed message is an error if compression was not negotiated.
        socket.send_json_compressed(&json!({"type": "ping"})).await;
        let (code, reason) = socket.closed().await;
        assert_eq!((code, &reason["reason"]), (1002, &json!("protocol_error")));
    }
}

/// The bytes of a client, and the code and reason of the close frame that answers them.
fn violations() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let bomb = deflated(&vec![b' '; 50_000_000]);
    let filter = json!({"type": "subscribe", "meters": vec!["m"; 501]}).to_string();
    let endless_fragments = {
        let mut frames = masked(0x01, b"x");
        for _ in 0..100 {
            frames.extend(masked(0x00, b""));
        }
        frames
    };
    let nonsense: Vec<u8> = (0..20).flat_map(|_| masked(TEXT, b"nonsense")).collect();
    vec![
        (
            "a deflate bomb",
            masked(TEXT_COMPRESSED, &bomb),
            1009,
            "message_too_big",
        ),
        (
            "a long message",
            masked(TEXT, &[b'x'; 65_537]),
            1009,
            "message_too_big",
        ),
        (
            "a frame of an exabyte",
            [&[0x82, 0xff, 0x0f][..], &[0; 20]].concat(),
            1009,
            "message_too_big",
        ),
        (
            "a message that grows by fragments",
            [masked(0x01, &[b'x'; 40_000]), masked(0x80, &[b'x'; 40_000])].concat(),
            1009,
            "message_too_big",
        ),
        (
            "endless fragments",
            endless_fragments,
            1008,
            "too_many_fragments",
        ),
        (
            "a filter that is too long",
            masked(TEXT, filter.as_bytes()),
            4400,
            "filter_too_long",
        ),
        ("nothing but nonsense", nonsense, 4400, "bad_messages"),
        (
            "a text that is not UTF-8",
            masked(TEXT, b"\xff\xfe"),
            1007,
            "not_utf8",
        ),
        (
            "a compressed text that is not UTF-8",
            masked(TEXT_COMPRESSED, &deflated(&[0xff; 500])),
            1007,
            "not_utf8",
        ),
        (
            "noise marked as compressed",
            masked(TEXT_COMPRESSED, &[0xff; 50]),
            1002,
            "protocol_error",
        ),
        (
            "no mask",
            vec![0x81, 0x02, b'{', b'}'],
            1002,
            "protocol_error",
        ),
        (
            "an undefined opcode",
            masked(0x83, b"x"),
            1002,
            "protocol_error",
        ),
        ("reserved bits", masked(0xb1, b"x"), 1002, "protocol_error"),
        (
            "a fragment without a message",
            masked(0x80, b"x"),
            1002,
            "protocol_error",
        ),
        (
            "a fragmented ping",
            masked(0x09, b"x"),
            1002,
            "protocol_error",
        ),
        (
            "a long ping",
            masked(PING, &[0; 126]),
            1002,
            "protocol_error",
        ),
        (
            "half a status code",
            masked(CLOSE, b"\x03"),
            1002,
            "protocol_error",
        ),
        (
            "a status code that must not be sent",
            masked(CLOSE, &1006_u16.to_be_bytes()),
            1002,
            "protocol_error",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_violation_has_its_close_code_and_affects_no_other_client() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let url = server.api_url.clone();
    let mut bystander = RawWebSocket::compressed(&url, &token("ben", Role::User)).await;
    bystander
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    for (what, bytes, code, reason) in violations() {
        let mut socket = RawWebSocket::compressed(&url, &token("anna", Role::User)).await;
        socket.send_bytes(&bytes).await;
        let (was_code, was_reason) = socket.closed().await;
        assert_eq!(
            (was_code, was_reason["reason"].as_str().unwrap()),
            (code, reason),
            "{what}"
        );
        assert_eq!(socket.next().await, Received::End, "{what}");
    }
    // The same before authentication: the client learns only the reason.
    for (what, bytes, code, reason) in violations() {
        let headers = [("sec-websocket-extensions", DEFLATE)];
        let mut socket = RawWebSocket::open(&url, "/ws", &headers).await.unwrap();
        socket.send_bytes(&bytes).await;
        let (was_code, was_reason) = socket.closed().await;
        let is_message = matches!(reason, "filter_too_long" | "bad_messages");
        let expected = if is_message {
            (4401, "unauthorized")
        } else {
            (code, reason)
        };
        assert_eq!(
            (was_code, was_reason["reason"].as_str().unwrap()),
            expected,
            "{what}"
        );
    }
    publish(&grid.pool, &events_of("ben", 1)).await;
    assert_eq!(bystander.message().await["seq"], 1);
    drop(bystander);
    until_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_starts_and_stalls_ends_the_stream() {
    const LIMIT: Duration = Duration::from_secs(20);
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let url = server.api_url.clone();
    let mut bystander = RawWebSocket::compressed(&url, &token("ben", Role::User)).await;
    bystander
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    let ping = masked(TEXT, br#"{"type":"ping"}"#);
    let fragment = masked(0x01, br#"{"type":"#);
    // All at the same time, since each takes the full limit.
    let started = Instant::now();
    let mut sockets = Vec::new();
    for (what, bytes) in [
        ("half a header", ping[..1].to_vec()),
        ("half a payload", ping[..10].to_vec()),
        ("a fragment", fragment.clone()),
        (
            "a fragment and a ping",
            [fragment, masked(PING, b"")].concat(),
        ),
        (
            "half a message after one",
            [&ping[..], &ping[..10]].concat(),
        ),
    ] {
        let mut socket = RawWebSocket::compressed(&url, &token("anna", Role::User)).await;
        socket.send_bytes(&bytes).await;
        sockets.push((what, socket));
    }
    publish(&grid.pool, &events_of("ben", 1)).await;
    assert_eq!(bystander.message().await["seq"], 1);
    for (what, mut socket) in sockets {
        let (code, reason) = socket.closed().await;
        assert_eq!(
            (code, &reason["reason"]),
            (1008, &json!("message_unfinished")),
            "{what}"
        );
        assert!(started.elapsed() >= LIMIT, "{what}");
        assert_eq!(socket.next().await, Received::End, "{what}");
    }
    drop(bystander);
    until_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_ends_the_stream() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let url = server.api_url.clone();
    // A client that reads the answers gets further than one that does not; both are closed.
    let mut reads = RawWebSocket::compressed(&url, &token("anna", Role::User)).await;
    let mut answers = 0;
    let (code, reason) = loop {
        reads.send_json(json!({"type": "ping"})).await;
        match reads.next().await {
            Received::Text(..) => answers += 1,
            Received::Close(code, reason) => break (code, reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (code, reason),
        (
            4429,
            json!({"reason": "too_many_messages", "retry_after_ms": 60_000})
        )
    );
    assert!(answers >= 239, "{answers}");
    let mut floods = RawWebSocket::compressed(&url, &token("anna", Role::User)).await;
    floods.send_bytes(&masked(PING, b"x").repeat(5_000)).await;
    let (code, reason) = floods.closed().await;
    let reason = reason["reason"].as_str().unwrap();
    assert!(
        [(4429, "too_many_messages"), (1008, "unanswered_messages")].contains(&(code, reason)),
        "{code} {reason}"
    );
    until_empty(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_is_answered_with_its_own_code() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let token = token("anna", Role::User);
    for (payload, code) in [
        (&b""[..], 1000),
        (b"\x03\xe8bye", 1000),
        (b"\x03\xe9", 1001),
        (b"\x0f\xa0own", 4000),
    ] {
        let mut socket = RawWebSocket::compressed(&server.api_url, &token).await;
        socket.send_frame(CLOSE, payload).await;
        assert_eq!(socket.closed().await, (code, json!({})));
        assert_eq!(socket.next().await, Received::End);
    }
    until_empty(&server).await;
    let metrics = server.admin().get_text("/metrics").await;
    for line in [
        "gridtokenx_websocket_errors_total 0",
        r#"gridtokenx_websocket_closes_total{reason="left"} 4"#,
    ] {
        assert!(metrics.contains(line), "no {line}");
    }
}

fn random_bytes(rng: &mut StdRng, length: usize) -> Vec<u8> {
    (0..length).map(|_| rng.random()).collect()
}

/// Bytes that a client might send.
fn random_input(rng: &mut StdRng) -> Vec<u8> {
    let deep = |open: &str, depth: usize| {
        format!(r#"{{"type":"subscribe","meters":{}"#, open.repeat(depth)).into_bytes()
    };
    let long: usize = rng.random_range(60_000..70_000);
    let message = match rng.random_range(0..9) {
        0 => deep("[", 20_000),
        1 => deep("{\"a\":", 9_000),
        2 => br#"{"type":"resume","after":99999999999999999999999999999}"#.to_vec(),
        3 => br#"{"type":"auth","token":"eyJ.eyJ.x"}"#.to_vec(),
        4 => br#"{"type":"subscribe","min_amount":{"$serde_json::private::Number":"1"}}"#.to_vec(),
        5 => random_bytes(rng, 200),
        6 => vec![b'x'; long],
        7 => vec![0xc3; 30],
        _ => br#"{"type":"unsubscribe"}"#.to_vec(),
    };
    match rng.random_range(0..6) {
        0 => random_bytes(rng, 100),
        1 => masked(rng.random(), &message),
        2 => masked(TEXT_COMPRESSED, &deflated(&message)),
        3 => {
            let noise = random_bytes(rng, 300);
            masked(TEXT_COMPRESSED, &noise)
        }
        4 => {
            // Truncated.
            let mut frame = masked(TEXT, &message);
            frame.truncate(rng.random_range(0..frame.len()));
            frame
        }
        _ => masked(TEXT, &message),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_clients_send_the_service_survives_and_every_stream_ends() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[("LOG_LEVEL", "warn")]).await;
    let url = server.api_url.clone();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut bystander = RawWebSocket::compressed(&url, &token("ben", Role::User)).await;
    bystander
        .send_json(json!({"type": "resume", "after": 0}))
        .await;
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (url, mut rng) = (
                url.clone(),
                StdRng::seed_from_u64(seed.wrapping_add(client)),
            );
            tokio::spawn(async move {
                for _ in 0..25 {
                    let mut socket = if rng.random_ratio(1, 3) {
                        let headers = [("sec-websocket-extensions", DEFLATE)];
                        RawWebSocket::open(&url, "/ws", &headers).await.unwrap()
                    } else {
                        RawWebSocket::compressed(&url, &token("anna", Role::User)).await
                    };
                    for _ in 0..rng.random_range(1..=6) {
                        let bytes = random_input(&mut rng);
                        socket.send_bytes(&bytes).await;
                    }
                    // Most disconnect at once; some send a close frame.
                    match rng.random_range(0..3) {
                        0 => socket.hang_up().await,
                        1 => socket.send_frame(CLOSE, b"").await,
                        _ => drop(socket),
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    publish(&grid.pool, &events_of("ben", 1)).await;
    assert_eq!(bystander.message().await["seq"], 1);
    drop(bystander);
    until_empty(&server).await;
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_each_client_gets_its_own_events_and_no_others() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "120")]).await;
    let url = grid.api_url();
    const USERS: usize = 12;
    const ROUNDS: usize = 60;
    let mut listeners = Vec::new();
    for user in 0..USERS {
        // Two of each: one compressed, one not.
        for is_compressed in [true, false] {
            let subject = format!("user-{user}");
            let token = token(&subject, Role::User);
            let mut socket = if is_compressed {
                RawWebSocket::compressed(&url, &token).await
            } else {
                let bearer = format!("Bearer {token}");
                let mut socket = RawWebSocket::open(&url, "/ws", &[("authorization", &bearer)])
                    .await
                    .unwrap();
                assert_eq!(socket.message().await["type"], "hello");
                socket
            };
            socket
                .send_json(json!({"type": "resume", "after": 0}))
                .await;
            listeners.push(tokio::spawn(async move {
                let mut received = Vec::new();
                while received.len() < ROUNDS {
                    for message in socket.messages().await {
                        assert_eq!(message["user_id"], subject, "{message}");
                        received.push(message["error_reason"].as_str().unwrap().to_owned());
                    }
                }
                let expected: Vec<String> = (0..ROUNDS)
                    .map(|round| format!("round {round} of {subject}"))
                    .collect();
                assert_eq!(received, expected);
            }));
        }
    }
    for round in 0..ROUNDS {
        let mut events: Vec<Event> = (0..USERS)
            .map(|user| {
                let subject = format!("user-{user}");
                event_of(
                    &subject,
                    EventType::MintFailed,
                    &format!("round {round} of {subject}"),
                )
            })
            .collect();
        events.push(Event::new(
            EventType::BatchMintingCompleted,
            &EventFields::default(),
        ));
        publish(&grid.pool, &events).await;
    }
    for listener in listeners {
        listener.await.unwrap();
    }
    until_numbered(&grid.pool, (ROUNDS * (USERS + 1)) as i64).await;
}
