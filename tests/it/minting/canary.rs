//! The service's own meter shows, minute by minute, that readings are minted.

use std::time::Duration;

use gridtokenx::canary::OWNER;
use serde_json::{Value, json};

use crate::support::metrics::value;
use crate::support::{Grid, Server, eventually};

const CANARY: (&str, &str) = ("CANARY_ENABLED", "true");

/// Its readings that are finalized, and all of them.
async fn readings(grid: &Grid) -> (i64, i64) {
    sqlx::query_as(
        "SELECT count(*) FILTER (WHERE reading.state = 'finalized'), count(*)
         FROM readings AS reading
         JOIN meters AS meter ON meter.id = reading.meter
         WHERE meter.owner = $1",
    )
    .bind(OWNER)
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}

async fn health(server: &Server) -> Value {
    server.admin().get("/health/ready").await.body["checks"]["canary"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_mints_once_a_minute_whichever_of_two_processes_sends_it() {
    let grid = Grid::without_service(&[]).await;
    let mut one = grid.spawn(&[CANARY]).await;
    grid.until("the first is minted", async || {
        readings(&grid).await == (1, 1)
    })
    .await;
    let other = grid.spawn(&[CANARY]).await;
    for server in [&one, &other] {
        eventually("both report that it is fresh", async || {
            let age = value(&server.admin(), "gridtokenx_canary_age_seconds").await;
            (age > 0.0 && age < 60.0 && health(server).await["status"] == "ok").then_some(())
        })
        .await;
        assert_eq!(
            value(&server.admin(), "gridtokenx_canary_enabled").await,
            1.0
        );
    }
    let minted = async |server: &Server| {
        value(&server.admin(), "gridtokenx_canary_duration_seconds_count").await
    };
    grid.until("the leader has noted it", async || {
        minted(&one).await >= 1.0
    })
    .await;
    assert_eq!(minted(&other).await, 0.0);

    // The other process sends at once, and within the same minute that is the same reading.
    one.kill9().await;
    tokio::time::timeout(Duration::from_secs(110), async {
        grid.until("the other goes on", async || {
            readings(&grid).await == (2, 2)
        })
        .await;
    })
    .await
    .expect("one a minute");
    grid.until("it has noted its own", async || minted(&other).await >= 1.0)
        .await;
    let (intervals, meters): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(DISTINCT interval_start) FROM readings), (SELECT count(*) FROM meters)",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(intervals, 2, "one for each minute");
    assert_eq!(meters, 1);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "2", "the least that pays");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_degrades_health_unless_auto_mint_is_off() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[CANARY]).await;
    grid.until("the first is minted", async || readings(&grid).await.0 == 1)
        .await;
    sqlx::query("UPDATE settings SET changed_at = now() - INTERVAL '1 hour'")
        .execute(&grid.pool)
        .await
        .unwrap();
    eventually("health reports the silence", async || {
        // As if none had been minted since; repeated, because a new minute may have begun meanwhile.
        sqlx::query("UPDATE readings SET accepted_at = now() - INTERVAL '10 minutes'")
            .execute(&grid.pool)
            .await
            .unwrap();
        let check = health(&server).await;
        (check["status"] == "degraded").then_some(check)
    })
    .await;
    let ready = server.admin().get("/health/ready").await;
    assert_eq!(
        (ready.status, &ready.body["status"]),
        (200, &json!("degraded"))
    );
    assert!(value(&server.admin(), "gridtokenx_canary_age_seconds").await >= 600.0);

    server
        .admin()
        .post(
            "/api/admin/tokenization/toggle-auto-mint",
            &json!({ "enabled": false }),
        )
        .await
        .ok();
    eventually("none is expected", async || {
        let age = value(&server.admin(), "gridtokenx_canary_age_seconds").await;
        (health(&server).await["status"] == "ok" && age == 0.0).then_some(())
    })
    .await;
}
