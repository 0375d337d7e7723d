//! Events are kept for as long as promised and no longer, and a client that asks for older ones gets a gap.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gridtokenx::feed::retention::{Retention, RoundOutcome, run_round};
use gridtokenx::meters::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::client::token;
use crate::support::events::{events_of, last_seq, publish, until_numbered};
use crate::support::{FeedClient, Grid, Server, eventually};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Bounds of the partitions, in order.
async fn partitions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT bounds
         FROM (
             SELECT pg_get_expr(relpartbound, oid) AS bounds
             FROM pg_class
             WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::REGCLASS)
         ) AS partitions
         ORDER BY (regexp_match(bounds, '\\d+'))[1]::BIGINT",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn range(from: i64, to: i64) -> String {
    format!("FOR VALUES FROM ('{from}') TO ('{to}')")
}

async fn oldest_seq(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT oldest_seq FROM feed_head")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn kept(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("SELECT seq FROM events ORDER BY seq")
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Makes all events up to a number older.
async fn age(pool: &PgPool, up_to: i64, days: i32) {
    sqlx::query(
        "UPDATE events SET sequenced_at = sequenced_at - make_interval(days => $2) WHERE seq <= $1",
    )
    .bind(up_to)
    .bind(days)
    .execute(pool)
    .await
    .unwrap();
}

async fn publish_numbered(pool: &PgPool, count: usize) {
    let last = last_seq(pool).await;
    publish(pool, &events_of("anna", count)).await;
    until_numbered(pool, last + count as i64).await;
}

async fn round(pool: &PgPool) -> RoundOutcome {
    run_round(pool, Retention::new(MONTH)).await.unwrap()
}

/// A service that numbers events; the test drops them.
async fn grid_without_drops() -> Grid {
    Grid::start_with(&[("FEED_RETENTION_DAYS", "3650")]).await
}

/// A database with numbered events, whose service has stopped.
async fn numbered(count: usize) -> Grid {
    let mut grid = Grid::start().await;
    publish_numbered(&grid.pool, count).await;
    grid.stop().await;
    grid
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_events_are_a_gap_over_every_transport() {
    let grid = grid_without_drops().await;
    publish_numbered(&grid.pool, 20).await;
    // The feed was quiet for forty days: the newest partition ends at 20, and the next round drops it.
    age(&grid.pool, 20, 40).await;
    assert_eq!(
        round(&grid.pool).await,
        RoundOutcome {
            dropped: 0,
            cut: true
        }
    );
    publish_numbered(&grid.pool, 5).await;
    assert_eq!(
        round(&grid.pool).await,
        RoundOutcome {
            dropped: 1,
            cut: false
        }
    );
    assert_eq!(kept(&grid.pool).await, [21, 22, 23, 24, 25]);

    // A process that started earlier remembers the events; a new one reads the log.
    let server = grid.spawn(&[]).await;
    let anna = server.user("anna");
    let page = anna.get("/api/events?after=7").await.ok();
    assert_eq!(page["gap"], json!({"from": 8, "to": 20}));
    assert_eq!(
        (&page["oldest_seq"], &page["last_seq"]),
        (&json!(21), &json!(25))
    );
    assert_eq!(page["events"].as_array().unwrap().len(), 5);
    let page = anna.get("/api/events?after=20").await.ok();
    assert_eq!(page.get("gap"), None);

    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 7).await;
    assert_eq!(
        client.message().await,
        json!({"type": "gap", "from": 8, "to": 20})
    );
    for seq in 21..=25 {
        assert_eq!(client.seq().await, seq);
    }
    let mut response = reqwest::Client::new()
        .get(format!("{}/api/events/stream?after=7", server.api_url))
        .bearer_auth(token("anna", Role::User))
        .send()
        .await
        .unwrap();
    let mut text = String::new();
    while !text.contains("id: 21\n") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(
        text.contains(r#"data: {"type":"gap","from":8,"to":20}"#),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_younger_event_keeps_its_partition_and_the_newest_partition_stays() {
    let grid = numbered(30).await;
    age(&grid.pool, 29, 400).await;
    assert!(round(&grid.pool).await.cut, "it started long ago");
    // Number 30 is from today, so the other 29 are kept with it.
    assert_eq!(round(&grid.pool).await, RoundOutcome::default());
    assert_eq!(kept(&grid.pool).await.len(), 30);
    age(&grid.pool, 30, 29).await;
    assert_eq!(round(&grid.pool).await, RoundOutcome::default(), "29 days");
    age(&grid.pool, 30, 1).await;
    assert_eq!(round(&grid.pool).await.dropped, 1);
    // Only an empty partition is left, and the next number goes there.
    assert_eq!(kept(&grid.pool).await, [0i64; 0]);
    assert_eq!(oldest_seq(&grid.pool).await, 31);
    for _ in 0..3 {
        assert_eq!(round(&grid.pool).await, RoundOutcome::default());
    }
    let server = grid.spawn(&[]).await;
    let page = server.user("anna").get("/api/events?after=30").await.ok();
    assert_eq!(page.get("gap"), None, "{page}");
    let page = server.user("anna").get("/api/events?after=29").await.ok();
    assert_eq!(page["gap"], json!({"from": 30, "to": 30}));
    publish_numbered(&grid.pool, 1).await;
    assert_eq!(kept(&grid.pool).await, [31]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_feed_has_a_partition_for_each_span_and_no_more() {
    let grid = grid_without_drops().await;
    // Ten events each day.
    for _ in 0..5 {
        publish_numbered(&grid.pool, 10).await;
        let last = last_seq(&grid.pool).await;
        age(&grid.pool, last, 1).await;
        assert!(round(&grid.pool).await.cut);
        assert_eq!(round(&grid.pool).await, RoundOutcome::default());
    }
    publish_numbered(&grid.pool, 10).await;
    let mut expected: Vec<String> = [(0, 11), (11, 21), (21, 31), (31, 41), (41, 51)]
        .map(|(from, to)| range(from, to))
        .into();
    // The rest of a range that was made for a fast feed is divided, so that the next partition has this feed's width.
    expected.extend([range(51, 200_011), range(200_011, 1_000_000)]);
    assert_eq!(partitions(&grid.pool).await[..7], expected);
    assert_eq!(kept(&grid.pool).await, (1..=60).collect::<Vec<i64>>());
    // Each partition has its indexes: for uniqueness, and for a user's events.
    let indexes: Vec<i64> = sqlx::query_scalar(
        "SELECT count(*)
         FROM pg_inherits
         JOIN pg_index ON indrelid = inhrelid
         WHERE inhparent = 'events'::REGCLASS
         GROUP BY inhrelid",
    )
    .fetch_all(&grid.pool)
    .await
    .unwrap();
    assert!(indexes.iter().all(|count| *count == 2), "{indexes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_rounds_drop_a_partition_once() {
    let grid = numbered(10).await;
    age(&grid.pool, 10, 40).await;
    let all_at_once = async || {
        let rounds: Vec<_> = (0..8)
            .map(|_| {
                let pool = grid.pool.clone();
                tokio::spawn(async move { run_round(&pool, Retention::new(MONTH)).await })
            })
            .collect();
        let mut dropped = 0;
        let mut cuts = 0;
        for round in rounds {
            // A round that waits too long for another's lock fails; the next one is a minute later.
            if let Ok(outcome) = round.await.unwrap() {
                dropped += outcome.dropped;
                cuts += usize::from(outcome.cut);
            }
        }
        (dropped, cuts)
    };
    let (dropped, cuts) = all_at_once().await;
    let (more, more_cuts) = all_at_once().await;
    assert_eq!((dropped + more, cuts + more_cuts), (1, 1));
    assert_eq!(oldest_seq(&grid.pool).await, 11);
    assert_eq!(kept(&grid.pool).await, [0i64; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hangs_delays_only_the_retention() {
    let grid = grid_without_drops().await;
    publish_numbered(&grid.pool, 10).await;
    age(&grid.pool, 10, 40).await;
    let mut hanging = grid.pool.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM events")
        .execute(&mut *hanging)
        .await
        .unwrap();
    let error = run_round(&grid.pool, Retention::new(MONTH))
        .await
        .unwrap_err();
    let code = error.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("55P03"), "{error}");
    // Events are numbered and read as before.
    publish_numbered(&grid.pool, 10).await;
    let mut client = FeedClient::resumed(&grid.api_url(), "anna", Role::User, 0).await;
    for seq in 1..=20 {
        assert_eq!(client.seq().await, seq);
    }
    hanging.rollback().await.unwrap();
    age(&grid.pool, 20, 40).await;
    assert!(round(&grid.pool).await.cut);
    assert_eq!(round(&grid.pool).await.dropped, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_each_event_or_a_gap_while_events_are_dropped() {
    let grid = grid_without_drops().await;
    let admin = grid.admin();
    let is_done = AtomicBool::new(false);
    // Thirty partitions of fifty events; all but the last five become too old one after the other.
    let write = async {
        for number in 1..=30i64 {
            publish_numbered(&grid.pool, 50).await;
            age(&grid.pool, number * 50, 2).await;
            successful_round(&grid.pool).await;
            age(&grid.pool, (number - 5) * 50, 40).await;
            successful_round(&grid.pool).await;
        }
        is_done.store(true, Ordering::SeqCst);
    };
    let (mut cursor, mut seen, mut missed) = (0, 0, 0);
    let read = async {
        loop {
            let done = is_done.load(Ordering::SeqCst);
            let page = admin
                .get(&format!("/api/events?after={cursor}&limit=7"))
                .await
                .ok();
            if let Some(gap) = page.get("gap") {
                assert_eq!(gap["from"], cursor + 1, "{page}");
                let to = gap["to"].as_i64().unwrap();
                missed += to - cursor;
                cursor = to;
            }
            let events = page["events"].as_array().unwrap();
            for event in events {
                cursor += 1;
                seen += 1;
                assert_eq!(event["seq"], cursor, "{page}");
            }
            if events.is_empty() && done {
                break;
            }
        }
    };
    tokio::join!(write, read);
    assert_eq!((cursor, seen + missed), (1_500, 1_500));
    assert!(seen >= 250, "{seen} seen");
    assert!(oldest_seq(&grid.pool).await > 1_000);
}

/// Repeats a round until readers do not block it.
async fn successful_round(pool: &PgPool) {
    eventually("a round succeeds", async || {
        run_round(pool, Retention::new(MONTH)).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_while_it_drops_or_cuts_leaves_the_log_unchanged() {
    let grid = numbered(10).await;
    age(&grid.pool, 10, 40).await;
    let before = partitions(&grid.pool).await;
    let dies_at = async |point: &str| {
        let action = format!("{point}=return(kill)");
        // It checks the partitions as soon as it is the leader, which may be before it reports its address.
        let more = [("FAILPOINTS", action.as_str())];
        let status = Server::run_to_its_end(grid.environment(), &more).await;
        assert!(status.code().is_none(), "{point}: {status}");
    };
    dies_at("feed.cut").await;
    assert_eq!(partitions(&grid.pool).await[0], before[0]);
    assert_eq!(kept(&grid.pool).await.len(), 10);
    assert!(round(&grid.pool).await.cut);
    dies_at("feed.dropped").await;
    assert_eq!(kept(&grid.pool).await.len(), 10);
    assert_eq!(oldest_seq(&grid.pool).await, 1);

    // The next process does it at once.
    let server = grid.spawn(&[]).await;
    eventually("old events are dropped", async || {
        (oldest_seq(&grid.pool).await == 11).then_some(())
    })
    .await;
    shows(&server, "gridtokenx_feed_partitions_dropped_total", 1).await;
    shows(&server, "gridtokenx_feed_oldest_seq", 11).await;
    shows(&server, "gridtokenx_feed_oldest_event_age_seconds", 0).await;
    let there = partitions(&grid.pool).await.len();
    shows(&server, "gridtokenx_feed_partitions", there).await;
}

async fn shows(server: &Server, metric: &str, value: usize) {
    eventually(&format!("{metric} is {value}"), async || {
        let text = server.admin().get_text("/metrics").await;
        text.lines()
            .any(|line| line == format!("{metric} {value}"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retention_limit_is_configurable() {
    let grid = numbered(10).await;
    age(&grid.pool, 10, 40).await;
    assert!(round(&grid.pool).await.cut);
    let lenient = grid.spawn(&[("FEED_RETENTION_DAYS", "60")]).await;
    publish_numbered(&grid.pool, 1).await;
    let page: Value = lenient.user("anna").get("/api/events").await.ok();
    assert_eq!(page["oldest_seq"], 1);
    drop(lenient);
    let _strict = grid.spawn(&[("FEED_RETENTION_DAYS", "30")]).await;
    eventually("old events are dropped", async || {
        (oldest_seq(&grid.pool).await == 11).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_ahead_of_the_numbers() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let has_partitions_until = async |seq: i64| {
        let end = |range: &String| {
            let (_, end) = range.split_once(" TO ('").unwrap();
            end.trim_end_matches("')").parse::<i64>().unwrap()
        };
        eventually(&format!("there are partitions until {seq}"), async || {
            let last = partitions(&grid.pool).await.last().map(end);
            last.is_some_and(|last| last >= seq).then_some(())
        })
        .await;
    };
    has_partitions_until(1_000_001).await;
    drop(server);
    sqlx::query("UPDATE feed_head SET last_seq = 2999990")
        .execute(&grid.pool)
        .await
        .unwrap();
    let server = grid.spawn(&[]).await;
    publish(&grid.pool, &events_of("anna", 20)).await;
    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 2_999_990).await;
    for seq in 2_999_991..=3_000_010 {
        assert_eq!(client.seq().await, seq);
    }
    has_partitions_until(4_000_000).await;
    // Adjacent: where one ends the next begins.
    let there = partitions(&grid.pool).await;
    for pair in there.windows(2) {
        let end = pair[0].split(" TO ").nth(1);
        assert_eq!(
            pair[1]
                .split(" TO ")
                .next()
                .map(|from| from.replace("FOR VALUES FROM ", ""))
                .as_deref(),
            end,
            "{there:?}"
        );
    }
}
