//! Every event once and in order, under a storm of writers and with listeners that never stay: what they heard is compared
//! with the database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gridtokenx::feed::retention::Retention;
use gridtokenx::feed::sequencer;
use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, EventType, Topic, Wake};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::client::token;
use crate::support::events::{event_of, events_of, last_seq, numbers_of, publish};
use crate::support::wait::LIMIT;
use crate::support::{Ears, Grid, Next, Server, eventually};

/// A small generator: a run is told by its seed.
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

const OWNERS: usize = 4;

fn owner(index: usize) -> String {
    format!("user-{index}")
}

/// A writer that commits, hesitates and rolls back.
async fn storm(pool: PgPool, seed: u64, transactions: u64) {
    let mut dice = Dice(seed);
    for _ in 0..transactions {
        let owner = owner(dice.roll(OWNERS as u64) as usize);
        let mut transaction = pool.begin().await.unwrap();
        let mut events = events_of(&owner, 1 + dice.roll(8) as usize);
        events.push(event_of(&owner, EventType::MintFailed, "x"));
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

async fn until_outbox_is_empty(pool: &PgPool) {
    eventually("everything is numbered", async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(pool)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
}

/// The last number that each listener waits for, once the storm is over.
type Ends = Option<Vec<i64>>;

/// Addresses of the processes that run now.
type Urls = Arc<Mutex<Vec<String>>>;

/// How a listener asks this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    WebSocket,
    ServerSentEvents,
    Pages,
}

/// A client that comes back at random, by a door and to a process at random, until it has heard its last event.
struct Restless {
    urls: Urls,
    owner: String,
    /// Only WebSockets have filters, so who has one uses no other door.
    event_types: Option<Vec<&'static str>>,
    dice: Dice,
    /// Goes on after this.
    cursor: i64,
    heard: Vec<i64>,
    /// By door.
    connections: [u32; 3],
}

impl Restless {
    async fn listen(mut self, index: usize, mut ends: watch::Receiver<Ends>) -> Restless {
        while !self.is_done(index, &ends) {
            let url = {
                let urls = self.urls.lock().unwrap();
                urls[self.dice.roll(urls.len() as u64) as usize].clone()
            };
            let door = match self.dice.roll(3) {
                _ if self.event_types.is_some() => Door::WebSocket,
                0 => Door::Pages,
                1 => Door::ServerSentEvents,
                _ => Door::WebSocket,
            };
            self.connections[door as usize] += 1;
            let patience = 1 + self.dice.roll(12);
            match door {
                Door::WebSocket => self.by_socket(&url, patience, index, &mut ends).await,
                Door::ServerSentEvents => self.by_events(&url, patience, index, &mut ends).await,
                Door::Pages => self.by_page(&url).await,
            }
            // A process that is gone is not asked in a circle.
            tokio::time::sleep(Duration::from_millis(self.dice.roll(10))).await;
        }
        self
    }

    fn is_done(&self, index: usize, ends: &watch::Receiver<Ends>) -> bool {
        let ends = ends.borrow();
        ends.as_ref()
            .is_some_and(|ends| self.heard.last() == Some(&ends[index]))
    }

    fn hear(&mut self, event: &Value) {
        assert_ne!(event["type"], "gap", "nothing was dropped: {event}");
        assert_eq!(event["user_id"], self.owner, "told to {}", self.owner);
        let seq = event["seq"].as_i64().unwrap();
        assert!(seq > self.cursor, "{seq} after {}", self.cursor);
        self.heard.push(seq);
        self.cursor = seq;
    }

    async fn by_socket(
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
        let Some(mut ears) = Ears::try_resumed(url, &self.owner, &resume).await else {
            return;
        };
        while patience > 0 && !self.is_done(index, ends) {
            tokio::select! {
                next = ears.next() => match next {
                    Next::Message(event) => {
                        self.hear(&event);
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
                    self.hear(&serde_json::from_str(data).unwrap());
                    patience = patience.saturating_sub(1);
                }
                text = rest.to_owned();
            }
        }
    }

    async fn by_page(&mut self, url: &str) {
        let limit = 1 + self.dice.roll(9);
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
            self.hear(event);
        }
        if events.len() < limit as usize {
            self.cursor = page["last_seq"].as_i64().unwrap();
        }
    }
}

/// Two processes, one of which is killed again and again; its successor has another address.
async fn kill_either(
    grid: &Grid,
    urls: &Urls,
    seed: u64,
    storm: &AtomicUsize,
) -> (Vec<Server>, u32) {
    let mut dice = Dice(seed);
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(grid.spawn(&[]).await);
    }
    *urls.lock().unwrap() = servers
        .iter()
        .map(|server| server.api_url.clone())
        .collect();
    let mut kills = 0;
    while storm.load(Ordering::SeqCst) > 0 || kills < 6 {
        tokio::time::sleep(Duration::from_millis(100 + dice.roll(400))).await;
        let index = dice.roll(2) as usize;
        servers[index].kill9().await;
        kills += 1;
        servers[index] = grid.spawn(&[]).await;
        urls.lock().unwrap()[index] = servers[index].api_url.clone();
    }
    (servers, kills)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_keeps_coming_back_gets_each_of_its_events_once_and_in_order() {
    const WRITERS: usize = 6;
    let grid = Grid::without_service(&[]).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let urls = Urls::default();
    let writing = Arc::new(AtomicUsize::new(WRITERS));
    let (told, _) = watch::channel(Ends::None);
    // Two for each owner: one through all doors, one that wants only failures.
    let plans: Vec<(String, Option<Vec<&str>>)> = (0..OWNERS)
        .flat_map(|index| {
            [
                (owner(index), None),
                (owner(index), Some(vec!["MintFailed"])),
            ]
        })
        .collect();

    let end_of_storm = async {
        // The processes are there first.
        eventually("two processes serve", async || {
            (urls.lock().unwrap().len() == 2).then_some(())
        })
        .await;
        let listeners: Vec<_> = plans
            .iter()
            .enumerate()
            .map(|(index, (owner, event_types))| {
                let mut ends = told.subscribe();
                let restless = Restless {
                    urls: Arc::clone(&urls),
                    owner: owner.clone(),
                    event_types: event_types.clone(),
                    dice: Dice(seed.wrapping_add(index as u64)),
                    cursor: 0,
                    heard: Vec::new(),
                    connections: [0; 3],
                };
                tokio::spawn(async move {
                    // Some come when all is over.
                    if index >= 6 {
                        ends.wait_for(Option::is_some).await.unwrap();
                    }
                    restless.listen(index, ends).await
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|index| {
                let (pool, writing) = (grid.pool.clone(), Arc::clone(&writing));
                tokio::spawn(async move {
                    storm(pool, seed ^ ((index as u64) << 20), 100).await;
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
        tokio::join!(end_of_storm, kill_either(&grid, &urls, seed, &writing));
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
    let ends = expected.iter().map(|numbers| *numbers.last().unwrap());
    told.send_replace(Some(ends.collect()));
    let mut connections = [0; 3];
    for (listener, expected) in listeners.into_iter().zip(expected) {
        let restless = tokio::time::timeout(LIMIT, listener)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(restless.heard, expected);
        for (sum, each) in connections.iter_mut().zip(restless.connections) {
            *sum += each;
        }
    }
    drop(servers);
    println!("{connections:?} connections by door, {kills} kills");
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
    // Beside the service's own, and without its lock.
    for _ in 0..2 {
        tokio::spawn(sequencer::run(
            grid.pool.clone(),
            wake.clone(),
            Retention::new(Duration::from_secs(30 * 86_400)),
            Duration::from_secs(60),
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
