//! The toggle and the roll-out are stored, all processes apply a change immediately, and no reading is lost.

use gridtokenx::domain::MeterSerial;
use serde_json::{Value, json};

use crate::support::stored_events::{events, notifications};
use crate::support::{Api, Grid, eventually};

const TOGGLE: &str = "/api/admin/tokenization/toggle-auto-mint";
const PERCENTAGE: &str = "/api/admin/tokenization/auto-mint-percentage";
const STATUS: &str = "/api/admin/tokenization/status";
/// A period so long that only an admin's action starts a sweep during a test.
const NO_TICKS: (&str, &str) = ("TOKENIZATION_POLLING_INTERVAL_SECS", "86400");

async fn toggle(admin: &Api, enabled: bool) -> Value {
    let answer = admin.post(TOGGLE, &json!({"enabled": enabled})).await.ok();
    assert_eq!(answer["success"], true);
    assert_eq!(answer["auto_mint_enabled"], enabled);
    answer
}

/// Waits until that many jobs of readings have succeeded and none remains.
async fn until_jobs_are_done(grid: &Grid, wanted: i64) {
    eventually(&format!("{wanted} jobs are done"), async || {
        let (done, all): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE status = 'Done'), count(*)
             FROM apalis.jobs
             WHERE job_type = 'MintReading'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        ((done, all) == (wanted, wanted)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_toggle_is_answered_no_process_mints_what_comes_after_it() {
    let grid = Grid::without_service(&[NO_TICKS]).await;
    let (one, other) = (grid.spawn(&[]).await, grid.spawn(&[]).await);
    let (admin, meter) = (one.admin(), other.user("prosumer").meter().await);
    let mut jobs = 0;
    for round in 1..=10 {
        toggle(&admin, false).await;
        // Without a pause: a process that applied the toggle only some time after its commit would mint some of these.
        for _ in 0..3 {
            meter.report("1").await;
        }
        jobs += 3;
        until_jobs_are_done(&grid, jobs).await;
        assert_eq!(grid.count("pending").await, 3, "in round {round}");
        toggle(&admin, true).await;
        grid.until_count("finalized", jobs).await;
    }
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_switched_off_stays_off_at_another_and_after_a_restart() {
    let grid = Grid::without_service(&[NO_TICKS]).await;
    let mut one = grid.spawn(&[]).await;
    let mut other = grid.spawn(&[]).await;
    toggle(&one.admin(), false).await;
    one.kill9().await;
    let meter = other.user("prosumer").meter().await;
    for _ in 0..3 {
        meter.report("1").await;
    }
    until_jobs_are_done(&grid, 3).await;
    assert_eq!(grid.count("pending").await, 3);
    other.kill9().await;

    // The configuration says to mint, but the stored setting takes precedence.
    let next = grid
        .spawn(&[("TOKENIZATION_AUTO_MINT_ENABLED", "true")])
        .await;
    let meter = meter.at(&next.user("prosumer"));
    for _ in 0..3 {
        meter.report("1").await;
    }
    until_jobs_are_done(&grid, 6).await;
    assert_eq!(grid.count("pending").await, 6);
    let status = next.admin().get(STATUS).await.ok();
    assert_eq!(status["auto_mint_enabled"], false);
    assert_eq!(status["auto_mint_changed_by"], "an admin");
    assert!(status["auto_mint_changed_at"].is_string());
    assert_eq!(status["held_readings_count"], 6);

    toggle(&next.admin(), true).await;
    grid.until_count("finalized", 6).await;
    let audit = grid.audit_holds().await;
    assert_eq!(audit["admin_log"]["entries"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_held_readings_notify_admins_once_and_are_minted_at_once_when_it_is_turned_on() {
    let grid = Grid::without_service(&[NO_TICKS]).await;
    let (one, other) = (grid.spawn(&[]).await, grid.spawn(&[]).await);
    let admin = one.admin();
    toggle(&admin, false).await;
    assert_eq!(notifications(&grid).await, 0, "nothing is held back yet");
    let meter = one.user("prosumer").meter().await;
    let elsewhere = other.user("neighbour").meter().await;
    for _ in 0..25 {
        let (_, _) = tokio::join!(meter.report("1"), elsewhere.report("1"));
    }
    until_jobs_are_done(&grid, 50).await;
    assert_eq!(grid.count("pending").await, 50);
    assert_eq!(notifications(&grid).await, 1, "notified once");
    let sent = events(&grid, "AdminNotification").await;
    let text = sent[0]["error_reason"].as_str().unwrap();
    assert!(text.contains("auto-mint is off"), "{text}");

    // Switching it off a second time does not start a new period.
    let again = toggle(&admin, false).await;
    assert_eq!(
        again["message"],
        "auto-mint was off already: nothing changed"
    );
    meter.report("1").await;
    until_jobs_are_done(&grid, 51).await;
    assert_eq!(notifications(&grid).await, 1);

    toggle(&other.admin(), true).await;
    grid.until_count("finalized", 51).await;
    let sweeps: i64 =
        sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE job_type = 'SweepUnminted'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(sweeps, 1, "one sweep minted them all");

    // The next period of holding is announced again.
    toggle(&admin, false).await;
    meter.report("1").await;
    until_jobs_are_done(&grid, 52).await;
    eventually("admins are notified", async || {
        (notifications(&grid).await == 2).then_some(())
    })
    .await;
    let toggles: Vec<Value> = events(&grid, "AutoMintToggled")
        .await
        .iter()
        .map(|event| event["auto_mint_enabled"].clone())
        .collect();
    assert_eq!(toggles, [json!(false), json!(true), json!(false)]);
    let audit = grid.audit_holds().await;
    assert_eq!(audit["outstanding"]["readings"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_out_mints_for_some_meters_by_their_hash_and_for_the_rest_when_it_is_raised() {
    let settings = [NO_TICKS, ("TOKENIZATION_AUTO_MINT_PERCENTAGE", "30")];
    let mut grid = Grid::start_with(&settings).await;
    let user = grid.user("prosumer");
    let mut meters = Vec::new();
    let is_in = |serial: &str| MeterSerial::parse(serial).unwrap().rollout_bucket() < 30;
    // Until there are meters both inside and outside the roll-out.
    while meters.len() < 12
        || meters.iter().filter(|(_, is_in)| *is_in).count() < 2
        || meters.iter().filter(|(_, is_in)| !*is_in).count() < 2
    {
        let meter = user.meter().await;
        let is_in = is_in(&meter.serial);
        meters.push((meter, is_in));
    }
    let mut readings = Vec::new();
    for (meter, is_in) in &meters {
        for _ in 0..2 {
            readings.push((meter.report("1").await, *is_in));
        }
    }
    let all = readings.len() as i64;
    let inside = readings.iter().filter(|(_, is_in)| *is_in).count() as i64;
    grid.until_count("finalized", inside).await;
    until_jobs_are_done(&grid, all).await;
    for (reading, is_in) in &readings {
        let reading = user.get(&format!("/api/readings/{reading}")).await.ok();
        let expected = if *is_in { "finalized" } else { "pending" };
        assert_eq!(reading["state"], expected, "{reading}");
    }
    let status = grid.admin().get(STATUS).await.ok();
    assert_eq!(status["held_readings_count"], all - inside);
    assert_eq!(notifications(&grid).await, 0, "auto-mint is on");

    let all_meters = json!({"percentage": 100});
    let raised = grid.admin().post(PERCENTAGE, &all_meters).await.ok();
    assert_eq!(raised["success"], true);
    assert_eq!(raised["auto_mint_percentage"], 100);
    grid.until_count("finalized", all).await;
    grid.audit_holds().await;

    // The environment still says 30; the stored setting takes precedence.
    assert!(grid.stop().await);
    grid.serve().await;
    let status = grid.admin().get(STATUS).await.ok();
    assert_eq!(status["auto_mint_percentage"], 100);
}
