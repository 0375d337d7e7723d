//! Every event once and in order, under a storm of writers and with listeners that never stay: what they heard is compared
//! with the database.

use std::time::Duration;

use gridtokenx::feed::retention::Retention;
use gridtokenx::feed::sequencer;
use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, Topic, Wake};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::events::{events_of, last_seq, numbers_of, publish};
use crate::support::{Ears, Grid, Next, eventually};

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

/// The last number of each owner, once the storm is over.
type Ends = Option<Vec<i64>>;

/// A client that comes back at random, to a process at random, until it has heard its last event. Gives what it heard, and
/// in how many connections.
async fn listen_restlessly(
    urls: Vec<String>,
    index: usize,
    seed: u64,
    mut ends: watch::Receiver<Ends>,
) -> (Vec<i64>, u32) {
    let mut dice = Dice(seed);
    let mut heard: Vec<i64> = Vec::new();
    let mut connections = 0;
    loop {
        let url = &urls[dice.roll(urls.len() as u64) as usize];
        let after = heard.last().copied().unwrap_or(0);
        let mut ears = Ears::resumed(url, &owner(index), Role::User, after).await;
        connections += 1;
        let mut patience = 1 + dice.roll(40);
        while patience > 0 {
            let end = ends.borrow().as_ref().map(|ends| ends[index]);
            if end.is_some() && heard.last() == end.as_ref() {
                return (heard, connections);
            }
            tokio::select! {
                next = ears.next() => match next {
                    Next::Message(message) => {
                        heard.push(message["seq"].as_i64().unwrap());
                        patience -= 1;
                    }
                    Next::Closed(_) => break,
                },
                changed = ends.changed() => changed.unwrap(),
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

    let (told, _) = watch::channel(Ends::None);
    let listeners: Vec<_> = (0..OWNERS)
        .map(|index| {
            let (urls, mut ends) = (urls.clone(), told.subscribe());
            tokio::spawn(async move {
                // Half of them listen from the start, half come when all is over.
                if index % 2 == 1 {
                    ends.wait_for(Option::is_some).await.unwrap();
                }
                listen_restlessly(urls, index, seed.wrapping_add(index as u64), ends).await
            })
        })
        .collect();
    let writers: Vec<_> = (0..6)
        .map(|index| tokio::spawn(storm(grid.pool.clone(), seed ^ (index << 20), 60)))
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for index in 0..OWNERS {
        publish(&grid.pool, &events_of(&owner(index), 1)).await;
    }
    until_outbox_is_empty(&grid.pool).await;
    let mut expected = Vec::new();
    for index in 0..OWNERS {
        expected.push(numbers_of(&grid.pool, &owner(index)).await);
    }
    let ends = expected.iter().map(|numbers| *numbers.last().unwrap());
    told.send_replace(Some(ends.collect()));
    for (listener, expected) in listeners.into_iter().zip(expected) {
        let (heard, connections) = listener.await.unwrap();
        assert_eq!(heard, expected);
        assert!(connections > 3, "{connections} connections prove little");
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
            Retention::new(Duration::from_secs(30 * 86_400)),
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
