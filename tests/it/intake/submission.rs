//! A reading is stored once, with its job and its event, however often it is sent and whatever breaks meanwhile.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::client::Answer;
use crate::support::readings::{books_hold, count, past, reading, shown};
use crate::support::{Grid, eventually};

const SUBMIT: &str = "/api/meters/submit-reading";

/// Blocks all writes of readings until it is dropped.
async fn hold_readings(pool: &PgPool) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE readings IN EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
}

fn id_of(answer: &Answer) -> &str {
    answer.body["reading_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn two_hundred_copies_of_a_reading_are_one_reading_with_one_job() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let start = past(3);
    // Equal as decimals, however they are written.
    let amounts = [json!("1.25"), json!(1.25), json!("1.2500"), json!(0.125e1)];
    let submissions = (0..200).map(|number: usize| {
        let mut submission = reading(&meter, "", start, 15);
        submission["kwh_amount"] = amounts[number % amounts.len()].clone();
        submission
    });
    let answers =
        join_all(submissions.map(async |submission| meter.api.post(SUBMIT, &submission).await))
            .await;
    let id = id_of(&answers[0]).to_owned();
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && id_of(answer) == id)
    );
    let first = answers
        .iter()
        .filter(|answer| answer.body["duplicate"] == false);
    assert_eq!(first.count(), 1);
    assert_eq!(count(&grid.pool, "SELECT count(*) FROM readings").await, 1);
    assert_eq!(
        count(
            &grid.pool,
            "SELECT count(*) FROM apalis.jobs WHERE job_type = 'MintReading'"
        )
        .await,
        1
    );
    books_hold(&grid.pool).await;
}

#[tokio::test]
async fn an_accepted_reading_is_answered_and_shown_as_it_is_stored() {
    let grid = Grid::start_with(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let meter = grid.meter().await;
    let start = past(3);
    let mut submission = reading(&meter, "1.123456789012345678", start, 15);
    submission["meter_signature"] = json!("3045022100 abc");
    let accepted = meter.api.post(SUBMIT, &submission).await.ok();
    let id = accepted["reading_id"].clone();
    assert_eq!(
        accepted,
        json!({
            "success": true,
            "message": "Meter reading accepted",
            "reading_id": id,
            "duplicate": false,
            "state": "pending",
            "base_units": "1123456789",
        })
    );
    let path = format!("/api/readings/{}", id.as_str().unwrap());
    let mut view = meter.api.get(&path).await.ok();
    assert!(view["next_attempt_at"].take().is_string());
    let micros = |moment: DateTime<Utc>| moment.to_rfc3339_opts(SecondsFormat::Micros, true);
    assert_eq!(
        view,
        json!({
            "reading_id": id,
            "meter_id": meter.serial,
            "kwh_amount": "1.123456789012345678",
            "interval_start": micros(start),
            "reading_timestamp": micros(start + TimeDelta::minutes(15)),
            "wallet_address": solana_sdk::signature::Signer::pubkey(&meter.wallet).to_string(),
            "state": "pending",
            "base_units": "1123456789",
            "transaction_signature": null,
            "attempts": 0,
            "next_attempt_at": null,
            "last_error": null,
        })
    );
    let signature = "SELECT count(*) FROM readings WHERE meter_signature = '3045022100 abc'";
    assert_eq!(count(&grid.pool, signature).await, 1);
}

#[tokio::test]
async fn another_value_and_an_overlap_are_refused_by_name_and_intervals_may_touch() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let start = past(3);
    let stored = meter
        .api
        .post(SUBMIT, &reading(&meter, "1.5", start, 15))
        .await;
    let id = id_of(&stored).to_owned();
    let conflict = |sentence: String| {
        json!({
            "type": "/problems/conflict",
            "title": "Conflict",
            "status": 409,
            "detail": sentence,
            "error": sentence,
            "reading_id": id,
        })
    };
    let interval = |start: DateTime<Utc>, minutes| {
        format!(
            "{}/{}",
            shown(start),
            shown(start + TimeDelta::minutes(minutes))
        )
    };
    let serial = &meter.serial;

    let other = meter
        .api
        .post(SUBMIT, &reading(&meter, "1.6", start, 15))
        .await;
    assert_eq!(other.status, 409);
    assert_eq!(
        other.body,
        conflict(format!(
            "meter {serial} has reported 1.5 kWh for the interval {} already (reading {id}); \
             1.6 kWh is another value, and a stored reading does not change",
            interval(start, 15)
        ))
    );
    for (from, minutes) in [(-1, 2), (14, 15), (-15, 45), (5, 5), (0, 14), (1, 14)] {
        let from = start + TimeDelta::minutes(from);
        let overlap = meter
            .api
            .post(SUBMIT, &reading(&meter, "1.5", from, minutes))
            .await;
        assert_eq!(overlap.status, 409);
        assert_eq!(
            overlap.body,
            conflict(format!(
                "the interval {} of meter {serial} overlaps {} of reading {id}; \
                 report only time that no reading covers",
                interval(from, minutes),
                interval(start, 15)
            ))
        );
    }
    for from in [-15, 15] {
        let from = start + TimeDelta::minutes(from);
        meter
            .api
            .post(SUBMIT, &reading(&meter, "1.5", from, 15))
            .await
            .ok();
    }
    // The intervals of another meter do not conflict.
    let other_meter = grid.meter().await;
    other_meter
        .api
        .post(SUBMIT, &reading(&other_meter, "1.5", start, 15))
        .await
        .ok();
    books_hold(&grid.pool).await;
}

#[tokio::test]
async fn concurrent_submissions_to_two_services_never_store_overlapping_intervals() {
    let grid = Grid::start().await;
    let second = grid.spawn(&[]).await;
    let meter = grid.meter().await;
    let second = second.user("prosumer");
    let start = past(12);
    let answers = join_all((0..240).map(async |number: i64| {
        // Starts and lengths that overlap in every possible way.
        let from = start + TimeDelta::minutes(number * 37 % 240);
        let submission = reading(&meter, "1", from, 1 + number * 13 % 30);
        let api = if number % 2 == 0 { &meter.api } else { &second };
        api.post(SUBMIT, &submission).await
    }))
    .await;
    assert!(
        answers
            .iter()
            .all(|answer| [200, 409].contains(&answer.status))
    );
    let accepted = answers
        .iter()
        .filter(|answer| answer.body["duplicate"] == false);
    let stored = count(&grid.pool, "SELECT count(*) FROM readings").await;
    assert_eq!(accepted.count() as i64, stored);
    books_hold(&grid.pool).await;
}

#[tokio::test]
async fn the_same_reading_is_found_again_after_its_age_limit_and_under_stricter_rules() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let old = reading(&meter, "50", past(100), 15);
    let first = meter.api.post(SUBMIT, &old).await.ok();
    let strict = grid
        .spawn(&[
            ("TOKENIZATION_READING_MAX_AGE_DAYS", "1"),
            ("TOKENIZATION_MAX_READING_KWH", "10"),
        ])
        .await;
    let strict = strict.user("prosumer");
    let again = strict.post(SUBMIT, &old).await.ok();
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["reading_id"], first["reading_id"]);
    // Another value conflicts with the stored reading; only a new reading can be too old.
    let other = strict
        .post(SUBMIT, &reading(&meter, "51", past(100), 15))
        .await;
    assert_eq!(other.status, 409);
    let new = strict
        .post(SUBMIT, &reading(&meter, "1", past(101), 15))
        .await;
    assert_eq!(new.status, 400);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_was_taken_is_stored() {
    let grid = Grid::start_with(&[("INTAKE_BATCH_SIZE", "1"), ("INTAKE_LINGER_MS", "0")]).await;
    let meter = grid.meter().await;
    let start = past(5);
    let hold = hold_readings(&grid.pool).await;
    let http = reqwest::Client::new();
    let refused = AtomicI64::new(0);
    let submissions = (0..100).map(async |number: i64| {
        let request = http
            .post(format!("{}{SUBMIT}", grid.api_url()))
            .bearer_auth(&meter.api.token)
            .json(&reading(&meter, "1", start + TimeDelta::minutes(number), 1));
        let response = request.send().await.unwrap();
        if response.status() == 200 {
            return;
        }
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(
            response.json::<Value>().await.unwrap()["error"],
            "more readings wait to be stored than may; nothing was stored, send it again later"
        );
        refused.fetch_add(1, Ordering::Relaxed);
    });
    // At most two transactions in flight, one reading with the collector, twenty in the queue.
    const TAKEN_MAX: i64 = 2 + 1 + 20;
    tokio::join!(join_all(submissions), async {
        eventually("the others are refused while nothing moves", async || {
            (refused.load(Ordering::Relaxed) >= 100 - TAKEN_MAX).then_some(())
        })
        .await;
        hold.rollback().await.unwrap();
    });
    let stored = count(&grid.pool, "SELECT count(*) FROM readings").await;
    assert_eq!(stored, 100 - refused.load(Ordering::Relaxed));
    books_hold(&grid.pool).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_no_other_and_its_reading_is_stored() {
    let grid = Grid::start_with(&[("INTAKE_LINGER_MS", "100")]).await;
    let meter = grid.meter().await;
    let start = past(5);
    let hold = hold_readings(&grid.pool).await;
    let impatient = reqwest::Client::builder()
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let gone = impatient
        .post(format!("{}{SUBMIT}", grid.api_url()))
        .bearer_auth(&meter.api.token)
        .json(&reading(&meter, "1", start, 1))
        .send();
    let neighbour = reading(&meter, "2", start + TimeDelta::minutes(1), 1);
    let (neighbour, gone) = tokio::join!(meter.api.post(SUBMIT, &neighbour), async {
        let gone = gone.await;
        hold.rollback().await.unwrap();
        gone
    });
    assert!(gone.is_err(), "the first client hung up");
    assert_eq!(neighbour.ok()["duplicate"], false);
    eventually("both readings are stored", async || {
        (count(&grid.pool, "SELECT count(*) FROM readings").await == 2).then_some(())
    })
    .await;
    let again = meter
        .api
        .post(SUBMIT, &reading(&meter, "1", start, 1))
        .await
        .ok();
    assert_eq!(again["duplicate"], true);
}
