//! Many processes, many listeners, one log: what an event costs the database does not depend on the listeners.

use std::time::{Duration, Instant};

use gridtokenx::meters::Role;
use gridtokenx::outbox::NOTIFY_CHANNEL;
use sqlx::postgres::PgListener;

use crate::support::database_proxy::DatabaseProxy;
use crate::support::events::{events_of, publish, until_numbered};
use crate::support::{FeedClient, Grid, ListenerProxy};

/// Part of the query that reads a page of the log.
const PAGE: &str = "FROM feed_head AS head";
/// Poll interval of the hub.
const POLL_EVERY: Duration = Duration::from_millis(400);
const OWNERS: usize = 20;

async fn listeners(url: &str, count: usize) -> Vec<FeedClient> {
    let mut listeners = Vec::new();
    for index in 0..count {
        let owner = format!("owner-{}", index % OWNERS);
        listeners.push(FeedClient::resumed(url, &owner, Role::User, 0).await);
    }
    listeners
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_costs_no_query_for_each_listener_nor_for_itself() {
    const BATCHES: usize = 10;
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let proxy = DatabaseProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let mut clients = listeners(&server.api_url, 100).await;
    // One event for each, so that all are live.
    let first_events: Vec<_> = (0..OWNERS)
        .flat_map(|owner| events_of(&format!("owner-{owner}"), 1))
        .collect();
    publish(&grid.pool, &first_events).await;
    for client in &mut clients {
        client.seq().await;
    }

    let (before, since) = (proxy.runs_of(PAGE), Instant::now());
    for _ in 0..BATCHES {
        let events: Vec<_> = (0..OWNERS)
            .flat_map(|owner| events_of(&format!("owner-{owner}"), 20))
            .collect();
        publish(&grid.pool, &events).await;
    }
    for client in &mut clients {
        for _ in 0..BATCHES * 20 {
            client.seq().await;
        }
    }
    let polls = since.elapsed().as_millis() / POLL_EVERY.as_millis();
    let numbered: i64 = sqlx::query_scalar("SELECT count(DISTINCT xmin::TEXT) FROM events")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let queries = proxy.runs_of(PAGE) - before;
    let allowed = numbered as usize + polls as usize + 3;
    assert!(
        (1..=allowed).contains(&queries),
        "{queries} queries for {numbered} batches of 4000 events and 100 listeners, and {polls} polls"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_notification_for_each_numbered_batch_reaches_all_processes() {
    let grid = Grid::start_with(&[("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000")]).await;
    let others = [grid.spawn(&[]).await, grid.spawn(&[]).await];
    let urls = [
        grid.api_url(),
        others[0].api_url.clone(),
        others[1].api_url.clone(),
    ];
    let mut listener = PgListener::connect_with(&grid.pool).await.unwrap();
    listener.listen(NOTIFY_CHANNEL).await.unwrap();
    let mut clients = Vec::new();
    for url in &urls {
        clients.push(FeedClient::resumed(url, "anna", Role::User, 0).await);
    }
    // More events than one batch of the sequencer holds, and many small transactions.
    publish(&grid.pool, &events_of("anna", 3_500)).await;
    for _ in 0..50 {
        publish(&grid.pool, &events_of("anna", 2)).await;
    }
    until_numbered(&grid.pool, 3_600).await;
    for client in &mut clients {
        for seq in 1..=3_600 {
            assert_eq!(client.seq().await, seq);
        }
    }
    // Notifications arrive in the order of their commits.
    sqlx::query("SELECT pg_notify($1, 'the end')")
        .bind(NOTIFY_CHANNEL)
        .execute(&grid.pool)
        .await
        .unwrap();
    let mut notifications = 0;
    loop {
        match listener.recv().await.unwrap().payload() {
            "feed" => notifications += 1,
            "the end" => break,
            _ => {}
        }
    }
    let numbered: i64 = sqlx::query_scalar("SELECT count(DISTINCT xmin::TEXT) FROM events")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert!(numbered >= 4, "{numbered}");
    assert_eq!(notifications, numbered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_listening_connection_is_frozen_finds_events_by_polling() {
    let grid = Grid::start().await;
    let proxy = ListenerProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 0).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(client.seq().await, 1);
    proxy.stall_listeners();
    publish(&grid.pool, &events_of("anna", 1)).await;
    assert_eq!(client.seq().await, 2);
    assert_eq!(
        proxy.listening(),
        1,
        "received before the connection was replaced"
    );
}
