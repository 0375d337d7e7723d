//! Postgres becomes unavailable in the middle of the work, and recovers.

use std::time::Duration;

use gridtokenx::db;
use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::support::world::world;
use crate::support::{Grid, Meter, eventually};

/// Submits until it is accepted: while the database is unavailable the answer is a 503 with that reason, or the connection breaks.
async fn report_until_accepted(meter: &Meter) {
    let submission = meter.next_submission("0.1");
    eventually("the reading is accepted", async || {
        let answer = meter
            .api
            .try_post("/api/meters/submit-reading", &submission)
            .await
            .ok()?;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
}

/// Whether a row is stored that is written on the pool's only connection after a BEGIN was given up that had been polled this often.
async fn is_stored_after<T>(
    pool: &PgPool,
    other: &PgPool,
    polls: u32,
    begin: impl Future<Output = T>,
) -> bool {
    tokio::select! {
        biased;
        _ = begin => {}
        () = async {
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    sqlx::query("INSERT INTO written VALUES ($1)")
        .bind(i64::from(polls))
        .execute(pool)
        .await
        .unwrap();
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM written WHERE number = $1")
        .bind(i64::from(polls))
        .fetch_one(other)
        .await
        .unwrap();
    stored == 1
}

#[tokio::test]
async fn what_is_written_after_a_begin_that_was_given_up_is_stored() {
    let grid = Grid::without_service(&[]).await;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&grid.database_url)
        .await
        .unwrap();
    grid.execute("CREATE TABLE written (number BIGINT)").await;
    for polls in 0..400 {
        let begin = db::begin(&pool);
        assert!(
            is_stored_after(&pool, &grid.pool, polls, begin).await,
            "given up after {polls} polls"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgres_in_the_middle_loses_nothing_and_pays_once() {
    const ROUNDS: i64 = 3;
    const READINGS_PER_ROUND: i64 = 30;
    let mut cluster = PostgresCluster::start(PostgresOptions::ephemeral())
        .await
        .unwrap();
    let database_url = cluster.create_database("grid").await.unwrap();
    let mut grid = Grid::on(&database_url, world().rpc_url(), &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    for round in 1..=ROUNDS {
        for _ in 0..READINGS_PER_ROUND {
            report_until_accepted(&meter).await;
        }
        let postmaster = Pid::from_raw(i32::try_from(cluster.pid()).unwrap());
        // A fast shutdown, or a kill.
        let signal = if round % 2 == 0 {
            Signal::SIGINT
        } else {
            Signal::SIGKILL
        };
        kill(postmaster, signal).unwrap();
        cluster.exited().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.ensure_alive().await.unwrap();
    }
    let total = ROUNDS * READINGS_PER_ROUND;
    eventually("everything is finalized", async || {
        let finalized: i64 =
            sqlx::query_scalar("SELECT count(*) FROM readings WHERE state = 'finalized'")
                .fetch_one(&grid.pool)
                .await
                .ok()?;
        (finalized == total).then_some(())
    })
    .await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "9000000000");
    assert!(grid.stop().await);
    cluster.stop().await;
}
