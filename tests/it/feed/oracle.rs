//! Every event once and in order, with many concurrent writers and with clients that keep reconnecting: what they received is
//! compared with the database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gridtokenx::feed::retention::Retention;
use gridtokenx::feed::sequencer;
use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, EventType, Topic, Wake};
use gridtokenx::periodic::TaskList;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::client::token;
use crate::support::events::{
    event_of, events_of, last_seq, numbers_of, publish, until_outbox_is_empty,
};
use crate::support::wait::LIMIT;
use crate::support::{FeedClient, Grid, Next, Server, eventually};

const OWNERS: usize = 4;

fn owner(index: usize) -> String {
    format!("user-{index}")
}

/// Commits transactions, delays them at random, and rolls some back.
async fn write_at_random(pool: PgPool, seed: u64, transactions: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..transactions {
        let owner = owner(rng.random_range(0..OWNERS));
        let mut transaction = pool.begin().await.unwrap();
        let mut events = events_of(&owner, rng.random_range(1..=8));
        events.push(event_of(&owner, EventType::MintFailed, "x"));
        outbox::publish(&mut transaction, &events).await.unwrap();
        outbox::notify(&mut transaction, Topic::Outbox)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..15))).await;
        if rng.random_ratio(1, 5) {
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
        }
    }
}

/// The last number that each client waits for, once the writers are done.
type Ends = Option<Vec<i64>>;

/// Addresses of the processes that run now.
type Urls = Arc<Mutex<Vec<String>>>;

/// The connection that a client opens this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    WebSocket,
    ServerSentEvents,
    Pages,
}

/// A client that reconnects at random, over a random transport and to a random process, until it has received its last event.
struct RandomClient {
    urls: Urls,
    owner: String,
    /// Only WebSockets have filters, so a client with a filter uses no other transport.
    event_types: Option<Vec<&'static str>>,
    rng: StdRng,
    /// The last number received.
    cursor: i64,
    received: Vec<i64>,
    /// By transport.
    connections: [u32; 3],
}

impl RandomClient {
    async fn listen(mut self, index: usize, mut ends: watch::Receiver<Ends>) -> RandomClient {
        while !self.is_done(index, &ends) {
            let url = {
                let urls = self.urls.lock().unwrap();
                urls[self.rng.random_range(0..urls.len())].clone()
            };
            let transport = match self.rng.random_range(0..3) {
                _ if self.event_types.is_some() => Transport::WebSocket,
                0 => Transport::Pages,
                1 => Transport::ServerSentEvents,
                _ => Transport::WebSocket,
            };
            self.connections[transport as usize] += 1;
            let patience = self.rng.random_range(1..=12);
            match transport {
                Transport::WebSocket => self.by_websocket(&url, patience, index, &mut ends).await,
                Transport::ServerSentEvents => {
                    self.by_events(&url, patience, index, &mut ends).await
                }
                Transport::Pages => self.by_page(&url).await,
            }
            // A pause, so that a process that has ended is not retried in a busy loop.
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..10))).await;
        }
        self
    }

    fn is_done(&self, index: usize, ends: &watch::Receiver<Ends>) -> bool {
        let ends = ends.borrow();
        ends.as_ref()
            .is_some_and(|ends| self.received.last() == Some(&ends[index]))
    }

    fn receive(&mut self, event: &Value) {
        assert_ne!(event["type"], "gap", "nothing was dropped: {event}");
        assert_eq!(event["user_id"], self.owner, "sent to {}", self.owner);
        let seq = event["seq"].as_i64().unwrap();
        assert!(seq > self.cursor, "{seq} after {}", self.cursor);
        self.received.push(seq);
        self.cursor = seq;
    }

    async fn by_websocket(
        &mut self,
        url: &str,
        mut patience: u64,
        index: usize,
        ends: &mut watch::Receiver<Ends>,
    ) {
        let resume = match &self.event_types {
            Some(types) => json!({"type": "resume", "after": self.cursor, "event_types": types}),
            None => json!({"type": "resume", "after": self.cursor}),
        };
        let Some(mut client) = FeedClient::try_resumed(url, &self.owner, &resume).await else {
            return;
        };
        while patience > 0 && !self.is_done(index, ends) {
            tokio::select! {
                next = client.next() => match next {
                    Next::Message(event) => {
                        self.receive(&event);
                        patience -= 1;
                    }
                    Next::Closed(_) => return,
                },
                changed = ends.changed() => changed.unwrap(),
            }
        }
    }

    async fn by_events(
        &mut self,
        url: &str,
        mut patience: u64,
        index: usize,
        ends: &mut watch::Receiver<Ends>,
    ) {
        let asked = reqwest::Client::new()
            .get(format!("{url}/api/events/stream"))
            .bearer_auth(token(&self.owner, Role::User))
            .header("last-event-id", self.cursor)
            .send();
        let Ok(mut response) = asked.await else {
            return;
        };
        assert_eq!(response.status(), 200);
        let mut text = String::new();
        while patience > 0 && !self.is_done(index, ends) {
            tokio::select! {
                chunk = response.chunk() => match chunk {
                    Ok(Some(chunk)) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                    _ => return,
                },
                changed = ends.changed() => changed.unwrap(),
            }
            while let Some((event, rest)) = text.split_once("\n\n") {
                let named = event.contains("event: hello");
                if let Some((_, data)) = event.split_once("data: ").filter(|_| !named) {
                    self.receive(&serde_json::from_str(data).unwrap());
                    patience = patience.saturating_sub(1);
                }
                text = rest.to_owned();
            }
        }
    }

    async fn by_page(&mut self, url: &str) {
        let limit: usize = self.rng.random_range(1..=9);
        let asked = reqwest::Client::new()
            .get(format!(
                "{url}/api/events?after={}&limit={limit}",
                self.cursor
            ))
            .bearer_auth(token(&self.owner, Role::User))
            .send();
        let Ok(response) = asked.await else {
            return;
        };
        let Ok(page) = response.json::<Value>().await else {
            return;
        };
        assert_eq!(page.get("gap"), None, "{page}");
        let events = page["events"].as_array().unwrap();
        for event in events {
            self.receive(event);
        }
        if events.len() < limit {
            self.cursor = page["last_seq"].as_i64().unwrap();
        }
    }
}

/// Runs two processes and kills one of them repeatedly; its successor has another address.
async fn kill_either(
    grid: &Grid,
    urls: &Urls,
    seed: u64,
    writing: &AtomicUsize,
) -> (Vec<Server>, u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(grid.spawn(&[]).await);
    }
    *urls.lock().unwrap() = servers
        .iter()
        .map(|server| server.api_url.clone())
        .collect();
    let mut kills = 0;
    while writing.load(Ordering::SeqCst) > 0 || kills < 6 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..500))).await;
        let index = rng.random_range(0..2);
        servers[index].kill9().await;
        kills += 1;
        servers[index] = grid.spawn(&[]).await;
        urls.lock().unwrap()[index] = servers[index].api_url.clone();
    }
    (servers, kills)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_keeps_reconnecting_gets_each_of_its_events_once_and_in_order() {
    const WRITERS: usize = 6;
    let grid = Grid::without_service(&[]).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let urls = Urls::default();
    let writing = Arc::new(AtomicUsize::new(WRITERS));
    let (ends, _) = watch::channel(Ends::None);
    // Two for each owner: one over all transports, one that asks for failures only.
    let plans: Vec<(String, Option<Vec<&str>>)> = (0..OWNERS)
        .flat_map(|index| {
            [
                (owner(index), None),
                (owner(index), Some(vec!["MintFailed"])),
            ]
        })
        .collect();

    let end_of_writing = async {
        // The processes start first.
        eventually("two processes serve", async || {
            (urls.lock().unwrap().len() == 2).then_some(())
        })
        .await;
        let listeners: Vec<_> = plans
            .iter()
            .enumerate()
            .map(|(index, (owner, event_types))| {
                let mut ends = ends.subscribe();
                let client = RandomClient {
                    urls: Arc::clone(&urls),
                    owner: owner.clone(),
                    event_types: event_types.clone(),
                    rng: StdRng::seed_from_u64(seed.wrapping_add(index as u64)),
                    cursor: 0,
                    received: Vec::new(),
                    connections: [0; 3],
                };
                tokio::spawn(async move {
                    // Some connect after all writers are done.
                    if index >= 6 {
                        ends.wait_for(Option::is_some).await.unwrap();
                    }
                    client.listen(index, ends).await
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|index| {
                let (pool, writing) = (grid.pool.clone(), Arc::clone(&writing));
                tokio::spawn(async move {
                    write_at_random(pool, seed ^ ((index as u64) << 20), 100).await;
                    writing.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        listeners
    };
    let (listeners, (servers, kills)) =
        tokio::join!(end_of_writing, kill_either(&grid, &urls, seed, &writing));
    for index in 0..OWNERS {
        let last = event_of(&owner(index), EventType::MintFailed, "the last");
        publish(&grid.pool, &[last]).await;
    }
    until_outbox_is_empty(&grid.pool).await;
    let mut expected: Vec<Vec<i64>> = Vec::new();
    for (owner, event_types) in &plans {
        expected.push(match event_types {
            None => numbers_of(&grid.pool, owner).await,
            Some(_) => failures_of(&grid.pool, owner).await,
        });
    }
    let last_numbers = expected.iter().map(|numbers| *numbers.last().unwrap());
    ends.send_replace(Some(last_numbers.collect()));
    let mut connections = [0; 3];
    for (listener, expected) in listeners.into_iter().zip(expected) {
        let client = tokio::time::timeout(LIMIT, listener)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(client.received, expected);
        for (sum, each) in connections.iter_mut().zip(client.connections) {
            *sum += each;
        }
    }
    drop(servers);
    println!("{connections:?} connections by transport, {kills} kills");
    assert!(
        connections.iter().sum::<u32>() > 300 && connections.iter().all(|count| *count > 30),
        "{connections:?} connections prove little"
    );
}

async fn failures_of(pool: &PgPool, owner: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "SELECT seq FROM events WHERE user_id = $1 AND event_type = 'MintFailed' ORDER BY seq",
    )
    .bind(owner)
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sequencers_at_once_leave_no_gap_and_number_nothing_twice() {
    let grid = Grid::start().await;
    let stop = CancellationToken::new();
    let wake = Wake::default();
    // In addition to the service's own, and without its lock.
    for _ in 0..2 {
        let sequencer = sequencer::task(
            grid.pool.clone(),
            &wake,
            Retention::new(Duration::from_secs(30 * 86_400)),
            Duration::from_secs(60),
        );
        tokio::spawn(sequencer.run(&TaskList::default(), stop.clone()));
    }
    let writers: Vec<_> = (0..8)
        .map(|index| tokio::spawn(write_at_random(grid.pool.clone(), index, 40)))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    publish(&grid.pool, &events_of("anna", 2_500)).await;
    until_outbox_is_empty(&grid.pool).await;
    stop.cancel();
    let (count, ids, lowest, highest): (i64, i64, i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT event_id), min(seq), max(seq) FROM events")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!((ids, lowest, highest), (count, 1, count));
    assert_eq!(last_seq(&grid.pool).await, count);
}
