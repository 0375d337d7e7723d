//! The feed's promise: whoever goes on after the last number it saw gets each of its events once, in order, from any
//! process, or is told by a gap what cannot be given.

use std::time::Duration;

use gridtokenx::feed::sequencer;
use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, Event, EventFields, EventType, Topic, Wake};
use serde_json::json;
use sqlx::PgPool;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::client::token;
use crate::support::{Api, Ears, Grid, Next, eventually};

const SILENCE: Duration = Duration::from_millis(300);

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

/// Writes events as every writer does: in one transaction.
pub async fn publish(pool: &PgPool, events: &[Event]) {
    let mut transaction = pool.begin().await.unwrap();
    outbox::publish(&mut transaction, events).await.unwrap();
    outbox::notify(&mut transaction, Topic::Outbox)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

async fn last_seq(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT last_seq FROM feed_head")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn until_numbered(pool: &PgPool, seq: i64) {
    eventually(&format!("{seq} events are numbered"), async || {
        (last_seq(pool).await == seq).then_some(())
    })
    .await;
}

async fn numbers_of(pool: &PgPool, owner: &str) -> Vec<i64> {
    sqlx::query_scalar("SELECT seq FROM events WHERE user_id = $1 ORDER BY seq")
        .bind(owner)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// What one transaction of the storm does. Small generator, so that a run can be told from its seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Writers that commit, hesitate and roll back, side by side.
async fn storm(pool: PgPool, seed: u64, transactions: u64) {
    let mut dice = Dice(seed);
    for _ in 0..transactions {
        let owner = format!("user-{}", dice.roll(4));
        let mut transaction = pool.begin().await.unwrap();
        let events = events_of(&owner, 1 + dice.roll(8) as usize);
        outbox::publish(&mut transaction, &events).await.unwrap();
        outbox::notify(&mut transaction, Topic::Outbox)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(dice.roll(15))).await;
        if dice.roll(5) == 0 {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
        }
    }
}

/// A client that comes back at random to a process at random, until it has heard the last event.
async fn listen_restlessly(
    urls: Vec<String>,
    owner: &str,
    until: i64,
    seed: u64,
) -> (Vec<i64>, u32) {
    let mut dice = Dice(seed);
    let mut heard: Vec<i64> = Vec::new();
    let mut connections = 0;
    loop {
        let url = &urls[dice.roll(urls.len() as u64) as usize];
        let after = heard.last().copied().unwrap_or(0);
        let mut ears = Ears::resumed(url, owner, Role::User, after).await;
        connections += 1;
        for _ in 0..=dice.roll(40) {
            match ears.next().await {
                Next::Message(message) => heard.push(message["seq"].as_i64().unwrap()),
                Next::Closed(_) => break,
            }
            if heard.last() == Some(&until) {
                return (heard, connections);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_keeps_coming_back_gets_each_of_its_events_once_and_in_order() {
    let grid = Grid::start().await;
    let other = grid.spawn(&[]).await;
    let urls = vec![grid.api_url(), other.api_url.clone()];
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let owners: Vec<String> = (0..4).map(|index| format!("user-{index}")).collect();

    let writers: Vec<_> = (0..6)
        .map(|index| tokio::spawn(storm(grid.pool.clone(), seed ^ (index << 20), 60)))
        .collect();
    // The last event of each owner is known only after the storm: its number is the listeners' end.
    let (told, _) = tokio::sync::watch::channel(None::<Vec<i64>>);
    let listeners: Vec<_> = owners
        .iter()
        .enumerate()
        .map(|(index, owner)| {
            let (urls, owner, mut ends) = (urls.clone(), owner.clone(), told.subscribe());
            tokio::spawn(async move {
                // Half of them listen from the start, half resume when all is over.
                if index % 2 == 0 {
                    let early =
                        listen_restlessly_until_told(&urls, &owner, seed + index as u64, &mut ends)
                            .await;
                    return early;
                }
                let end = ends
                    .wait_for(Option::is_some)
                    .await
                    .unwrap()
                    .as_ref()
                    .unwrap()[index];
                listen_restlessly(urls, &owner, end, seed + index as u64).await
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for owner in &owners {
        publish(&grid.pool, &events_of(owner, 1)).await;
    }
    eventually("everything is numbered", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let mut expected = Vec::new();
    for owner in &owners {
        expected.push(numbers_of(&grid.pool, owner).await);
    }
    told.send_replace(Some(
        expected
            .iter()
            .map(|numbers| *numbers.last().unwrap())
            .collect(),
    ));
    for (listener, expected) in listeners.into_iter().zip(expected) {
        let (heard, connections) = listener.await.unwrap();
        assert_eq!(heard, expected);
        assert!(connections > 3, "{connections} connections prove little");
    }
}

/// Like [`listen_restlessly`], from before the end is known.
async fn listen_restlessly_until_told(
    urls: &[String],
    owner: &str,
    seed: u64,
    ends: &mut tokio::sync::watch::Receiver<Option<Vec<i64>>>,
) -> (Vec<i64>, u32) {
    let index: usize = owner.trim_start_matches("user-").parse().unwrap();
    let mut dice = Dice(seed);
    let mut heard: Vec<i64> = Vec::new();
    let mut connections = 0;
    loop {
        let url = &urls[dice.roll(urls.len() as u64) as usize];
        let mut ears =
            Ears::resumed(url, owner, Role::User, heard.last().copied().unwrap_or(0)).await;
        connections += 1;
        let mut left = 1 + dice.roll(40);
        while left > 0 {
            let end = ends.borrow().as_ref().map(|ends| ends[index]);
            if end.is_some() && heard.last() == end.as_ref() {
                return (heard, connections);
            }
            tokio::select! {
                next = ears.next() => match next {
                    Next::Message(message) => {
                        heard.push(message["seq"].as_i64().unwrap());
                        left -= 1;
                    }
                    Next::Closed(_) => break,
                },
                _ = ends.changed() => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sequencers_at_once_leave_no_gap_and_number_nothing_twice() {
    let grid = Grid::start().await;
    let stop = CancellationToken::new();
    let wake = Wake::default();
    // Beside the service's own, and without its lock.
    for _ in 0..2 {
        tokio::spawn(sequencer::run(
            grid.pool.clone(),
            wake.clone(),
            stop.clone(),
        ));
    }
    let writers: Vec<_> = (0..8)
        .map(|index| tokio::spawn(storm(grid.pool.clone(), index, 40)))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    publish(&grid.pool, &events_of("anna", 2_500)).await;
    eventually("everything is numbered", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    stop.cancel();
    let (count, ids, lowest, highest): (i64, i64, i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT event_id), min(seq), max(seq) FROM events")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!((ids, lowest, highest), (count, 1, count));
    assert_eq!(last_seq(&grid.pool).await, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stands_still_in_its_transaction_stops_nobody() {
    let grid = Grid::start().await;
    let mut ears = Ears::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    let mut frozen = grid.pool.begin().await.unwrap();
    outbox::publish(&mut frozen, &events_of("anna", 1))
        .await
        .unwrap();
    publish(
        &grid.pool,
        &[event_of("anna", EventType::MintFailed, "later")],
    )
    .await;
    let first = ears.message().await;
    assert_eq!(first["seq"], 1);
    assert_eq!(first["error_reason"], "later");
    outbox::notify(&mut frozen, Topic::Outbox).await.unwrap();
    frozen.commit().await.unwrap();
    let second = ears.message().await;
    assert_eq!(second["seq"], 2);
    assert_eq!(second["type"], "MeterReadingReceived");
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_comes_first_and_the_silent_time_loses_nothing() {
    let grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 3)).await;
    until_numbered(&grid.pool, 3).await;
    let url = grid.api_url();
    let (mut silent, seq) = Ears::of(&url, "anna", Role::User).await;
    assert_eq!(seq, 3);
    let (mut subscribed, _) = Ears::of(&url, "anna", Role::User).await;
    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    // Silent until it says something, or for five seconds; then from hello's number on.
    silent.hears_nothing_for(SILENCE).await;
    subscribed.say(json!({"type": "subscribe"})).await;
    assert_eq!(subscribed.seq().await, 5);
    assert_eq!(silent.seq().await, 5);
    // Live now: a resume is refused and changes nothing.
    for ears in [&mut silent, &mut subscribed] {
        ears.say(json!({"type": "resume", "after": 0})).await;
        assert_eq!(ears.message().await["type"], "error");
    }
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(silent.seq().await, 6);
    assert_eq!(subscribed.seq().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_an_error_and_the_stream_goes_on() {
    let grid = Grid::start().await;
    publish(&grid.pool, &events_of("anna", 2)).await;
    let (mut ears, _) = Ears::of(&grid.api_url(), "anna", Role::User).await;
    for text in [
        "nonsense",
        r#"{"type":"resume","after":-1}"#,
        r#"{"type":"resume","after":"1"}"#,
        r#"{"type":"resume"}"#,
        r#"[{"type":"resume","after":0}]"#,
        r#"{"type":"shout"}"#,
        r#"{"type":"auth","token":"x"}"#,
        r#"{"type":"subscribe","event_types":["Nothing"]}"#,
    ] {
        ears.send(Message::text(text)).await;
        let error = ears.message().await;
        assert_eq!(error["type"], "error", "{text}: {error}");
        assert!(error.get("seq").is_none());
    }
    ears.send(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(ears.message().await["type"], "error");
    ears.say(json!({"type": "resume", "after": 0})).await;
    assert_eq!(ears.seq().await, 1);
    assert_eq!(ears.seq().await, 2);
    ears.send(Message::text("x".repeat(64 * 1024 + 1))).await;
    assert_eq!(ears.closed().await.0, 1009);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_cannot_be_given_are_named() {
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

    // Ahead of everything, over the socket: told, and live from the head.
    let mut ahead = Ears::resumed(&url, "anna", Role::User, 500).await;
    assert_eq!(
        ahead.message().await,
        json!({"type": "gap", "from": 121, "to": 500})
    );
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(ahead.seq().await, 121);

    // What is no longer kept.
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
    // A process that remembers them still gives them; a new one reads the log.
    let fresh = grid.spawn(&[]).await;
    let mut late = Ears::resumed(&fresh.api_url, "anna", Role::User, 10).await;
    assert_eq!(
        late.message().await,
        json!({"type": "gap", "from": 11, "to": 49})
    );
    for seq in 50..=121 {
        assert_eq!(late.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_see_their_own_and_admins_everything() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let url = grid.api_url();
    let of_nobody = |event_type| Event::new(event_type, &EventFields::default());
    publish(&grid.pool, &events_of("anna", 1)).await;
    publish(&grid.pool, &events_of("ben", 1)).await;
    publish(
        &grid.pool,
        &[
            of_nobody(EventType::BatchMintingCompleted),
            of_nobody(EventType::AdminNotification),
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

    let mut anna = Ears::resumed(&url, "anna", Role::User, 0).await;
    let mut ben = Ears::resumed(&url, "ben", Role::User, 0).await;
    let mut admin = Ears::resumed(&url, "an admin", Role::Admin, 0).await;
    let (mut choosy, _) = Ears::of(&url, "an admin", Role::Admin).await;
    choosy
        .say(json!({"type": "resume", "after": 0, "event_types": ["MintFailed"], "meters": ["meter-of-anna"]}))
        .await;
    for (ears, seqs) in [
        (&mut anna, vec![1, 5]),
        (&mut ben, vec![2]),
        (&mut admin, vec![1, 2, 3, 4, 5]),
        (&mut choosy, vec![5]),
    ] {
        for seq in seqs {
            assert_eq!(ears.seq().await, seq);
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
    assert_eq!(choosy.seq().await, 8);
    assert_eq!((anna.seq().await, anna.seq().await), (7, 8));
    assert_eq!(ben.seq().await, 6);
    for ears in [&mut anna, &mut ben, &mut choosy] {
        ears.hears_nothing_for(SILENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_without_a_token_that_counts() {
    let mut grid = Grid::start().await;
    let url = grid.api_url();
    publish(&grid.pool, &events_of("anna", 1)).await;

    for bad in ["Bearer nonsense", "Bearer "] {
        let refused = Ears::connect(&url, &[("authorization", bad)]).await;
        assert_eq!(refused.err(), Some(401), "{bad:?}");
    }
    for first in [
        json!({"type": "auth", "token": "nonsense"}),
        json!({"type": "auth"}),
        json!({"type": "resume", "after": 0}),
    ] {
        let mut ears = Ears::connect(&url, &[]).await.unwrap();
        ears.say(first.clone()).await;
        assert_eq!(ears.closed().await.0, 4401, "{first}");
    }
    // Nothing is said at all.
    let mut mute = Ears::connect(&url, &[]).await.unwrap();
    assert_eq!(mute.closed().await.0, 4401);

    // As a browser does it.
    let mut browser = Ears::connect(&url, &[]).await.unwrap();
    browser.hears_nothing_for(SILENCE).await;
    browser
        .say(json!({"type": "auth", "token": token("anna", Role::User)}))
        .await;
    assert_eq!(browser.message().await["type"], "hello");
    browser.say(json!({"type": "resume", "after": 0})).await;
    assert_eq!(browser.seq().await, 1);

    // A stream ends with its token.
    let brief = crate::support::client::brief_token("anna", Role::User, Duration::from_secs(3));
    let mut ears = Ears::with_token(&url, &brief).await;
    assert_eq!(ears.message().await["type"], "hello");
    assert_eq!(ears.closed().await, (4401, "token expired".to_owned()));

    // And with its process.
    grid.stop().await;
    assert_eq!(browser.closed().await.0, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_where_none_is_asked_for_nothing_about_anyone_is_told() {
    let grid = Grid::start_with(&[
        ("WEBSOCKET_AUTH_REQUIRED", "false"),
        ("CORS_ORIGINS", "https://grid.example"),
    ])
    .await;
    let url = grid.api_url();
    let mut anonymous = Ears::connect(&url, &[("origin", "https://grid.example")])
        .await
        .unwrap();
    assert_eq!(anonymous.message().await["type"], "hello");
    anonymous.say(json!({"type": "resume", "after": 0})).await;
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
    let foreign = Ears::connect(&url, &[("origin", "https://evil.example")]).await;
    assert_eq!(foreign.err(), Some(403));
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_held_exactly() {
    let grid = Grid::start_with(&[("WEBSOCKET_MAX_CONNECTIONS", "2")]).await;
    let url = grid.api_url();
    let bearer = format!("Bearer {}", token("anna", Role::User));
    let headers = [("authorization", bearer.as_str())];
    let (first, _) = Ears::of(&url, "anna", Role::User).await;
    // One that has not said who it is takes a place too.
    let _second = Ears::connect(&url, &[]).await.unwrap();
    assert_eq!(Ears::connect(&url, &headers).await.err(), Some(503));
    drop(first);
    eventually("a place is free", async || {
        Ears::connect(&url, &headers).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_pace_a_client_gets_what_waits_in_one_frame() {
    // Ten at once, then one every six seconds.
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "10")]).await;
    let mut ears = Ears::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    for seq in 1..=10 {
        publish(&grid.pool, &events_of("anna", 1)).await;
        assert_eq!(ears.seq().await, seq);
    }
    for _ in 0..30 {
        publish(&grid.pool, &events_of("anna", 1)).await;
    }
    for seq in 11..=40 {
        assert_eq!(ears.seq().await, seq);
    }
    // Hello, the ten, and two or three more on a slow machine.
    assert!(ears.frames.len() <= 14, "{:?}", ears.frames);
    assert_eq!(ears.frames.iter().sum::<usize>(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_closes_nobody_who_reads() {
    let grid = Grid::start_with(&[("WEBSOCKET_EVENT_BUFFER_SIZE", "10")]).await;
    let mut ears = Ears::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    for _ in 0..3 {
        publish(&grid.pool, &events_of("anna", 3_000)).await;
    }
    for seq in 1..=9_000 {
        assert_eq!(ears.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_closed_with_its_last_number_and_resumes_from_there() {
    let grid = Grid::without_service(&[
        ("WEBSOCKET_EVENT_BUFFER_SIZE", "100"),
        ("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000"),
    ])
    .await;
    let server = grid.spawn(&[]).await;
    let mut ears = Ears::resumed(&server.api_url, "anna", Role::User, 0).await;
    let reason = "x".repeat(20_000);
    let big = vec![event_of("anna", EventType::MintFailed, &reason); 100];
    let operator = Api::new(&server.api_url, "an admin", Role::Admin);
    eventually("the service gives up on it", async || {
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
        match ears.next().await {
            Next::Message(message) => {
                seen += 1;
                assert_eq!(message["seq"], seen, "no silent gap");
            }
            Next::Closed(Some(farewell)) => break farewell,
            Next::Closed(None) => panic!("closed without a word after {seen}"),
        }
    };
    assert_eq!(code, 4408);
    assert!(
        reason.ends_with(&format!("resume after {seen}")),
        "{reason}, seen {seen}"
    );
    let mut again = Ears::resumed(&server.api_url, "anna", Role::User, seen).await;
    for seq in seen + 1..=last_seq(&grid.pool).await {
        assert_eq!(again.seq().await, seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_ahead_of_the_numbers() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    eventually("room is made", async || {
        let made: bool = sqlx::query_scalar("SELECT to_regclass('events_2') IS NOT NULL")
            .fetch_one(&grid.pool)
            .await
            .ok()?;
        made.then_some(())
    })
    .await;
    drop(server);
    sqlx::query("UPDATE feed_head SET last_seq = 2999990")
        .execute(&grid.pool)
        .await
        .unwrap();
    let server = grid.spawn(&[]).await;
    publish(&grid.pool, &events_of("anna", 20)).await;
    let mut ears = Ears::resumed(&server.api_url, "anna", Role::User, 2_999_990).await;
    for seq in 2_999_991..=3_000_010 {
        assert_eq!(ears.seq().await, seq);
    }
    eventually("there is room for two million more", async || {
        let partitions: Vec<String> = sqlx::query_scalar(
            "SELECT inhrelid::regclass::TEXT FROM pg_inherits
             WHERE inhparent = 'events'::regclass ORDER BY 1",
        )
        .fetch_all(&grid.pool)
        .await
        .unwrap();
        let expected = (0..=5).map(|number| format!("events_{number}"));
        partitions.into_iter().eq(expected).then_some(())
    })
    .await;
    // Attached ones have the indexes of the first.
    let indexes: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_indexes WHERE tablename = 'events_3'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(indexes, 2);
}
