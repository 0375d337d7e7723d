//! Readings are shown to their owner and to admins, page by page.

use chrono::{TimeDelta, Utc};
use gridtokenx::readings::prune_metered_intervals;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Grid;
use crate::support::readings::{count, past, reading};

const SUBMIT: &str = "/api/meters/submit-reading";

fn ids(page: &Value) -> Vec<&str> {
    let readings = page["readings"]
        .as_array()
        .unwrap_or_else(|| panic!("{page}"));
    readings
        .iter()
        .map(|reading| reading["reading_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn readings_are_listed_in_the_order_of_acceptance_page_by_page() {
    let grid = Grid::start_with(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let alice = grid.user("alice");
    let (one, two) = (alice.meter().await, alice.meter().await);
    let foreign = grid.user("bob").meter().await;
    let mut accepted = Vec::new();
    for hours in [9, 3, 7, 5, 4] {
        let meter = if hours % 2 == 0 { &two } else { &one };
        let body = alice
            .post(SUBMIT, &reading(meter, "1", past(hours), 15))
            .await
            .ok();
        accepted.push(body["reading_id"].as_str().unwrap().to_owned());
    }
    let of_bob = foreign
        .api
        .post(SUBMIT, &reading(&foreign, "1", past(3), 15))
        .await
        .ok();
    let of_bob = of_bob["reading_id"].as_str().unwrap();

    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page = alice
            .get(&format!("/api/readings?limit=2{after}"))
            .await
            .ok();
        paged.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(paged, accepted);
    let of_two = alice
        .get(&format!("/api/readings?meter_id={}", two.serial))
        .await
        .ok();
    assert_eq!(ids(&of_two), [accepted[4].as_str()]);
    let pending = alice.get("/api/readings?state=pending").await.ok();
    assert_eq!(ids(&pending), accepted);
    assert!(ids(&alice.get("/api/readings?state=finalized").await.ok()).is_empty());
    let all = grid.admin().get("/api/readings").await.ok();
    assert_eq!(ids(&all).len(), 6);
    let pending = grid
        .admin()
        .get("/api/readings?state=pending&limit=5")
        .await
        .ok();
    assert_eq!(
        (ids(&pending).len(), &pending["next"]),
        (5, &json!(accepted[4]))
    );

    // Another user's readings and meters are as unknown as those that do not exist.
    let unknown_id = Uuid::now_v7().to_string();
    for id in [of_bob, unknown_id.as_str()] {
        let refused = alice.get(&format!("/api/readings/{id}")).await;
        assert_eq!(refused.status, 404);
        assert_eq!(
            refused.body["error"],
            format!("reading {id} is not known; check the reading_id")
        );
    }
    assert_eq!(
        grid.admin()
            .get(&format!("/api/readings/{of_bob}"))
            .await
            .status,
        200
    );
    for serial in [foreign.serial.as_str(), "nobody's"] {
        assert_eq!(
            alice
                .get(&format!("/api/readings?meter_id={serial}"))
                .await
                .status,
            404
        );
    }
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_refused_by_the_parameters_name() {
    let grid = Grid::start().await;
    let alice = grid.user("alice");
    for (query, sentence) in [
        (
            "limit=1001",
            "limit \"1001\" is out of range; give a whole number from 1 to 1000",
        ),
        (
            "limit=",
            "limit \"\" is out of range; give a whole number from 1 to 1000",
        ),
        (
            "after=7",
            "after is not a reading_id; give `next` of the previous page",
        ),
        (
            "state=paid",
            "state paid is not a state of a reading: one of pending, submitted, minted, finalized, failed, quarantined",
        ),
        (
            "meter_id=",
            "meter_id is empty; a meter's serial has 1 to 64 characters",
        ),
    ] {
        let refused = alice.get(&format!("/api/readings?{query}")).await;
        assert_eq!(
            (refused.status, refused.body["error"].as_str()),
            (400, Some(sentence))
        );
    }
    assert_eq!(alice.get("/api/readings/7").await.status, 400);
}

#[tokio::test]
async fn guarded_intervals_go_once_nothing_acceptable_can_overlap_them() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let day = TimeDelta::days(1);
    let age_max = day * 7;
    // Accepted an hour after its end, then and now.
    let mut stored = Vec::new();
    for days in [20, 9, 8, 1] {
        let end = Utc::now() - day * days;
        let millis = (end + TimeDelta::hours(1)).timestamp_millis() as u64;
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &[days as u8; 10]).into_uuid();
        sqlx::query(
            "WITH reading AS (
                 INSERT INTO readings (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt)
                 SELECT $1, id, $3, $4, 1, 1, wallet, decode(repeat('00', 16), 'hex')
                 FROM meters WHERE serial = $2
                 RETURNING id, meter
             )
             INSERT INTO metered_intervals (reading, meter, metered)
             SELECT id, meter, tstzrange($3, $4, '[)') FROM reading",
        )
        .bind(id)
        .bind(&meter.serial)
        .bind(end - TimeDelta::minutes(15))
        .bind(end)
        .execute(&grid.pool)
        .await
        .unwrap();
        stored.push(id);
    }
    let pruned = prune_metered_intervals(&grid.pool, age_max.to_std().unwrap())
        .await
        .unwrap();
    // 8 days ago is within the age limit of 7 days and 25 hours.
    assert_eq!(pruned, 2);
    let left: Vec<Uuid> =
        sqlx::query_scalar("SELECT reading FROM metered_intervals ORDER BY reading")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert_eq!(left, stored[2..]);
    assert_eq!(count(&grid.pool, "SELECT count(*) FROM readings").await, 4);
}
