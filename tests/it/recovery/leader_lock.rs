//! Leader locks: of all processes that compete for a loop, one runs it, and another takes over when that one ends, crashes, or is
//! frozen.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gridtokenx::db::{LeaderLock, run_as_leader};
use gridtokenx::meters::Role;
use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::events::{events_of, publish};
use crate::support::{FeedClient, Grid, eventually};

/// One process that competes for the lock.
struct Contender {
    working: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Contender {
    fn start(database_url: &str) -> Contender {
        let working = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let options = PgConnectOptions::from_str(database_url)
            .unwrap()
            .application_name("contender");
        let count = Arc::clone(&working);
        let work = move |held: CancellationToken| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                held.cancelled().await;
                count.fetch_sub(1, Ordering::SeqCst);
            }
        };
        Contender {
            working,
            task: tokio::spawn(run_as_leader(
                options,
                LeaderLock::Resolver,
                stop.clone(),
                work,
            )),
            stop,
        }
    }

    fn works(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }
}

async fn until_one_works(contenders: &[&Contender]) -> usize {
    eventually("one works", async || {
        contenders.iter().position(|contender| contender.works())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_within_a_second_of_a_clean_end() {
    let grid = Grid::without_service(&[]).await;
    let all = [(); 3].map(|()| Contender::start(&grid.database_url));
    let first = until_one_works(&[&all[0], &all[1], &all[2]]).await;
    // Long enough for each other process to try twice.
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!(all.iter().filter(|contender| contender.works()).count(), 1);

    let stopped_at = Instant::now();
    all[first].stop.cancel();
    let others: Vec<&Contender> = (0..3)
        .filter(|index| *index != first)
        .map(|index| &all[index])
        .collect();
    until_one_works(&others).await;
    assert!(
        stopped_at.elapsed() < Duration::from_secs(1),
        "{:?}",
        stopped_at.elapsed()
    );
    assert!(!all[first].works());
    for contender in all {
        contender.stop.cancel();
        contender.task.await.unwrap();
        assert_eq!(contender.working.load(Ordering::SeqCst), 0);
    }
}

async fn end_sessions_of_contenders(grid: &Grid) {
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'contender' AND datname = current_database()",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(ended, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_loses_its_session_stops_and_competes_again() {
    let grid = Grid::without_service(&[]).await;
    let contender = Contender::start(&grid.database_url);
    until_one_works(&[&contender]).await;
    end_sessions_of_contenders(&grid).await;
    eventually("it stops", async || (!contender.works()).then_some(())).await;
    until_one_works(&[&contender]).await;
    contender.stop.cancel();
    contender.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_does_not_end_with_its_lock_is_dropped_and_started_again() {
    let grid = Grid::without_service(&[]).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let options = PgConnectOptions::from_str(&grid.database_url)
        .unwrap()
        .application_name("contender");
    let count = Arc::clone(&begun);
    let task = tokio::spawn(run_as_leader(
        options,
        LeaderLock::Resolver,
        stop.clone(),
        move |_| {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            async move {
                // The first run awaits an answer that never arrives.
                if turn == 0 {
                    std::future::pending::<()>().await;
                }
            }
        },
    ));
    eventually("it works", async || {
        (begun.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    end_sessions_of_contenders(&grid).await;
    eventually("it works again", async || {
        (begun.load(Ordering::SeqCst) > 1).then_some(())
    })
    .await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_process_loses_the_sequencer_lock_and_does_no_harm_when_it_resumes() {
    let grid = Grid::without_service(&[]).await;
    let first = grid.spawn(&[]).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    let mut at_first = FeedClient::resumed(&first.api_url, "anna", Role::User, 0).await;
    assert_eq!(at_first.seq().await, 1);

    let second = grid.spawn(&[]).await;
    first.signal(Signal::SIGSTOP);
    let mut at_second = FeedClient::resumed(&second.api_url, "anna", Role::User, 1).await;
    publish(&grid.pool, &events_of("anna", 50)).await;
    for seq in 2..=51 {
        assert_eq!(at_second.seq().await, seq);
    }

    first.signal(Signal::SIGCONT);
    for _ in 0..20 {
        publish(&grid.pool, &events_of("anna", 10)).await;
    }
    for seq in 52..=251 {
        assert_eq!(at_second.seq().await, seq);
    }
    // The frozen process sends what its client missed, in order, whether or not the stream survived.
    let mut woken = FeedClient::resumed(&first.api_url, "anna", Role::User, 1).await;
    for seq in 2..=251 {
        assert_eq!(woken.seq().await, seq);
    }
}
