//! Numbers rise without gaps, and n + 1 is never visible before n, whichever process writes, numbers, crashes or hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gridtokenx::meters::Role;
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::support::events::{events_of, last_seq, publish, until_outbox_is_empty};
use crate::support::{FeedClient, Grid, Meter};

/// Reads the log continuously while others write, and checks it within one statement and from one to the next.
struct Watcher {
    done: Arc<AtomicBool>,
    task: JoinHandle<u32>,
}

impl Watcher {
    fn start(pool: &PgPool) -> Watcher {
        let done = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(watch(pool.clone(), Arc::clone(&done)));
        Watcher { done, task }
    }

    /// Returns how many reads found new events.
    async fn finish(self) -> u32 {
        self.done.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

async fn watch(pool: PgPool, done: Arc<AtomicBool>) -> u32 {
    let (mut cursor, mut reads_with_new) = (0, 0);
    loop {
        let is_last = done.load(Ordering::SeqCst);
        let (head, highest, count): (i64, i64, i64) = sqlx::query_as(
            "SELECT last_seq,
                    (SELECT COALESCE(max(seq), 0) FROM events),
                    (SELECT count(*) FROM events)
             FROM feed_head",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!((highest, count), (head, head), "one snapshot");
        let new: Vec<i64> =
            sqlx::query_scalar("SELECT seq FROM events WHERE seq > $1 ORDER BY seq")
                .bind(cursor)
                .fetch_all(&pool)
                .await
                .unwrap();
        for seq in &new {
            cursor += 1;
            assert_eq!(*seq, cursor, "a number was skipped, and may be seen later");
        }
        reads_with_new += u32::from(!new.is_empty());
        if is_last {
            return reads_with_new;
        }
    }
}

/// Events about a reading; there may be others for admins meanwhile.
async fn reading_events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM events WHERE event_type = 'MeterReadingReceived'")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn stored(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM readings")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Reports readings, ten per request, until the process has ended. A request without an answer is not repeated.
async fn report(meter: Meter, readings: usize) {
    for _ in 0..readings / 10 {
        let batch: Vec<_> = (0..10).map(|_| meter.next_submission("0.1")).collect();
        let body = json!({ "readings": batch });
        let answer = meter
            .api
            .try_post("/api/meters/submit-readings", &body)
            .await;
        if answer.is_err() {
            return;
        }
    }
}

const NO_MINTING: (&str, &str) = ("TOKENIZATION_AUTO_MINT_ENABLED", "false");

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_write_concurrently_share_one_sequence_of_numbers() {
    let grid = Grid::without_service(&[NO_MINTING]).await;
    let servers = [grid.spawn(&[]).await, grid.spawn(&[]).await];
    let watcher = Watcher::start(&grid.pool);
    let mut writers = Vec::new();
    for server in &servers {
        for writer in 0..3 {
            let meter = server.user(&format!("writer-{writer}")).meter().await;
            writers.push(tokio::spawn(report(meter, 200)));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    until_outbox_is_empty(&grid.pool).await;
    let reads_with_new = watcher.finish().await;
    let stored = stored(&grid.pool).await;
    assert!(stored > 0);
    assert_eq!(reading_events(&grid.pool).await, stored);
    assert!(reads_with_new > 10, "{reads_with_new} reads prove little");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed_repeatedly_and_no_number_is_lost_or_assigned_twice() {
    let grid = Grid::without_service(&[NO_MINTING]).await;
    let mut leader = grid.spawn(&[]).await;
    publish(&grid.pool, &events_of("anna", 1)).await;
    until_outbox_is_empty(&grid.pool).await;
    let watcher = Watcher::start(&grid.pool);
    let mut written = 1;
    for round in 0..6 {
        let next = grid.spawn(&[]).await;
        let mut writers = Vec::new();
        for server in [&leader, &next] {
            let meter = server.user("writer").meter().await;
            writers.push(tokio::spawn(report(meter, 300)));
        }
        for _ in 0..20 {
            publish(&grid.pool, &events_of("anna", 7)).await;
            written += 7;
        }
        // While events are being numbered.
        leader.kill9().await;
        for writer in writers {
            writer.await.unwrap();
        }
        until_outbox_is_empty(&grid.pool).await;
        // The remaining process is the leader now.
        leader = next;
        assert!(last_seq(&grid.pool).await >= written, "round {round}");
    }
    watcher.finish().await;
    let (events, ids): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT event_id) FROM events")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(ids, events);
    assert_eq!(
        reading_events(&grid.pool).await,
        written + stored(&grid.pool).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_within_its_transaction_leaves_no_number_behind() {
    let grid = Grid::without_service(&[NO_MINTING]).await;
    // It creates the tables.
    drop(grid.spawn(&[]).await);
    let watcher = Watcher::start(&grid.pool);
    let mut written = 0;
    for point in ["feed.fenced", "feed.numbered"] {
        let action = format!("{point}=3*off->1*return(kill)");
        let mut dying = grid.spawn(&[("FAILPOINTS", &action)]).await;
        // One of these batches is its last.
        while dying.is_running() {
            publish(&grid.pool, &events_of("anna", 3)).await;
            written += 3;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _next = grid.spawn(&[]).await;
        until_outbox_is_empty(&grid.pool).await;
        assert_eq!(last_seq(&grid.pool).await, written, "{point}");
    }
    watcher.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_within_its_transaction_does_not_block_others() {
    let grid = Grid::without_service(&[NO_MINTING]).await;
    let server = grid.spawn(&[]).await;
    let watcher = Watcher::start(&grid.pool);
    let release = grid.data_dir.path().join("release");
    let writer = grid
        .spawn(&[
            ("FAILPOINTS", "intake.before_commit=return(stall)"),
            ("FAILPOINTS_RELEASE", release.to_str().unwrap()),
        ])
        .await;
    let meter = writer.user("prosumer").meter().await;
    let submission = meter.next_submission("1");
    let api = meter.api.clone();
    let reporting = tokio::spawn(async move {
        api.try_post("/api/meters/submit-reading", &submission)
            .await
    });
    let open_transactions = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*)
             FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction'
               AND query LIKE '%notify%'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap()
    };
    grid.until("its event is written and not committed", async || {
        open_transactions().await == 1
    })
    .await;
    writer.signal(Signal::SIGSTOP);

    // The events of all others are numbered and delivered.
    let mut client = FeedClient::resumed(&server.api_url, "anna", Role::User, 0).await;
    for seq in 1..=30 {
        publish(&grid.pool, &events_of("anna", 1)).await;
        assert_eq!(client.seq().await, seq);
    }
    let meter = server.user("another").meter().await;
    meter.report("1").await;
    until_outbox_is_empty(&grid.pool).await;
    assert_eq!(reading_events(&grid.pool).await, 31);

    std::fs::write(&release, "").unwrap();
    writer.signal(Signal::SIGCONT);
    // It commits, unless the steps above took half a minute: then the database has ended its transaction.
    let answer = reporting.await.unwrap();
    grid.until("its transaction is over", async || {
        open_transactions().await == 0
    })
    .await;
    until_outbox_is_empty(&grid.pool).await;
    let stored = stored(&grid.pool).await;
    assert_eq!(reading_events(&grid.pool).await, 30 + stored);
    if answer.is_ok_and(|answer| answer.status == 200) {
        assert_eq!(stored, 2);
    }
    watcher.finish().await;
}
