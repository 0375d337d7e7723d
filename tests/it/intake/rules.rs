//! The rules for readings: every refusal is a problem document that names the value and says what to do, and the owner is notified.

use chrono::{SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::readings::{count, past, reading, shown};
use crate::support::{Grid, eventually};

const SUBMIT: &str = "/api/meters/submit-reading";

fn validation_problem(sentence: &str) -> Value {
    let sentence = format!("Reading validation failed: {sentence}");
    json!({
        "type": "/problems/validation-failed",
        "title": "Validation failed",
        "status": 400,
        "detail": sentence,
        "error": sentence,
    })
}

#[tokio::test]
async fn every_refusal_names_the_value_and_what_to_do() {
    let grid = Grid::start_with(&[("BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION", "100000000000")]).await;
    let meter = grid.meter().await;
    let start = past(3);
    let end = shown(start + TimeDelta::minutes(15));
    let long_ago = past(7 * 24 + 1);
    let soon = shown((Utc::now() + TimeDelta::hours(1)).trunc_subsecs(6));
    let start = shown(start);
    for (member, value, sentence) in [
        ("kwh_amount", json!("-1.5"), "kwh_amount -1.5 is negative; a reading reports energy above 0 kWh".to_owned()),
        ("kwh_amount", json!(0), "kwh_amount 0 is zero; a reading reports energy above 0 kWh".to_owned()),
        ("kwh_amount", json!("1,5"), "kwh_amount 1,5 is not a decimal number such as 1.25".to_owned()),
        ("kwh_amount", json!("NaN"), "kwh_amount NaN is not a decimal number such as 1.25".to_owned()),
        (
            "kwh_amount",
            json!("100.000000001"),
            "kwh_amount 100.000000001 is above this service's limit of 100 kWh per reading; \
             split the interval or ask the operator"
                .to_owned(),
        ),
        (
            "kwh_amount",
            json!("0.0000000009"),
            "kwh_amount 0.0000000009 is worth less than one base unit; report a longer interval with more energy"
                .to_owned(),
        ),
        (
            "kwh_amount",
            json!("0.1234567890123456789"),
            "kwh_amount 0.1234567890123456789 has more than 18 digits after the decimal point; \
             it is not rounded, so report fewer"
                .to_owned(),
        ),
        (
            "kwh_amount",
            json!({"$serde_json::private::Number": "1.5"}),
            "kwh_amount must be the interval's energy in kWh, a number or a decimal string such as \"1.25\"".to_owned(),
        ),
        (
            "kwh_amount",
            Value::Null,
            "kwh_amount is missing; it is the interval's energy in kWh, a number or a decimal string such as \"1.25\""
                .to_owned(),
        ),
        (
            "meter_id",
            json!("a\u{0}b"),
            "meter_id a\\0b holds the character U+0000; a meter's serial has letters, digits, punctuation and symbols only"
                .to_owned(),
        ),
        ("meter_id", json!(""), "meter_id is empty; a meter's serial has 1 to 64 characters".to_owned()),
        (
            "reading_timestamp",
            json!("2026-03-01T12:15"),
            "reading_timestamp 2026-03-01T12:15 is not an RFC 3339 timestamp with seconds and offset, \
             such as 2026-03-01T12:15:00Z or 2026-03-01T13:15:00+01:00"
                .to_owned(),
        ),
        (
            "reading_timestamp",
            json!("2026-03-01T12:15:00"),
            "reading_timestamp 2026-03-01T12:15:00 has no offset from UTC; end it with Z or with +hh:mm".to_owned(),
        ),
        (
            "interval_start",
            json!(end),
            format!("the interval from {end} to {end} is empty: its start must be before its end"),
        ),
        (
            "interval_start",
            json!(soon),
            format!("the interval from {soon} to {end} ends before it starts"),
        ),
        (
            "interval_start",
            json!(long_ago),
            format!("the interval from {} to {end} is longer than 24 hours; split it", shown(long_ago)),
        ),
        ("meter_signature", json!(""), "meter_signature has 0 characters; give 1 to 256, or leave it out".to_owned()),
        ("meter_signature", json!(["x"]), "meter_signature must be a string".to_owned()),
    ] {
        let mut submission = json!({
            "meter_id": meter.serial,
            "kwh_amount": "1",
            "reading_timestamp": end,
            "interval_start": start,
        });
        submission[member] = value;
        let refused = meter.api.post(SUBMIT, &submission).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(refused.body, validation_problem(&sentence));
    }
    assert_eq!(count(&grid.pool, "SELECT count(*) FROM readings").await, 0);
}

#[tokio::test]
async fn the_age_is_checked_at_the_start_and_the_future_at_the_end_of_the_interval() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let old = reading(&meter, "1", past(7 * 24 + 1), 23 * 60);
    let refused = meter.api.post(SUBMIT, &old).await;
    assert_eq!(
        refused.body,
        validation_problem(&format!(
            "the interval starts at {}, more than 7 days ago; this service takes no readings that old: ask the operator",
            old["interval_start"].as_str().unwrap()
        ))
    );
    let in_six_minutes = Utc::now() + TimeDelta::minutes(6);
    let in_six_minutes = shown(in_six_minutes.trunc_subsecs(6));
    let early =
        json!({"meter_id": meter.serial, "kwh_amount": 1, "reading_timestamp": in_six_minutes});
    let refused = meter.api.post(SUBMIT, &early).await;
    assert_eq!(
        refused.body,
        validation_problem(&format!(
            "reading_timestamp {in_six_minutes} is more than 5 minutes in the future; check the meter's clock \
             and send the reading once its interval is over"
        ))
    );
}

#[tokio::test]
async fn without_a_start_the_meters_interval_gives_the_length() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let start = past(3);
    let mut submission = reading(&meter, "1", start, 15);
    submission.as_object_mut().unwrap().remove("interval_start");
    meter.api.post(SUBMIT, &submission).await.ok();
    let again = meter
        .api
        .post(SUBMIT, &reading(&meter, "1", start, 15))
        .await
        .ok();
    assert_eq!(again["duplicate"], true);
}

#[tokio::test]
async fn a_body_is_one_json_object_and_unknown_members_are_ignored() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let mut submission = reading(&meter, "1", past(3), 15);
    submission["colour"] = json!({"of": ["the", "meter", "\u{0}"]});
    meter.api.post(SUBMIT, &submission).await.ok();
    let array = json!([meter.serial, "1", shown(past(2)), null, null]);
    let refused = meter.api.post(SUBMIT, &array).await;
    assert_eq!(
        (refused.status, refused.body["error"].as_str()),
        (
            400,
            Some("the request body is a JSON array; send a JSON object, as `GET /docs` shows it")
        )
    );
    let twice = reqwest::Client::new()
        .post(format!("{}{SUBMIT}", grid.api_url()))
        .bearer_auth(&meter.api.token)
        .header("content-type", "application/json")
        .body(r#"{"kwh_amount": 1, "kwh_amount": 2}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(twice.status(), 400);
    let problem: Value = twice.json().await.unwrap();
    assert_eq!(
        problem["error"],
        "the request body does not fit: duplicate field `kwh_amount` at line 1 column 30"
    );
}

#[tokio::test]
async fn an_unknown_meter_and_another_users_meter_get_the_same_answer() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let submission = reading(&meter, "1", past(3), 15);
    let mut unknown = submission.clone();
    unknown["meter_id"] = json!("nobody's");
    for (body, serial) in [(&submission, meter.serial.as_str()), (&unknown, "nobody's")] {
        let refused = grid.user("stranger").post(SUBMIT, body).await;
        let sentence = format!(
            "meter {serial} is not known; check the meter_id, or register it with POST /api/meters"
        );
        assert_eq!(
            refused.body,
            json!({
                "type": "/problems/not-found",
                "title": "Not found",
                "status": 404,
                "detail": sentence,
                "error": sentence,
            })
        );
    }
    // An admin may report for every owner.
    grid.admin().post(SUBMIT, &submission).await.ok();
}

/// Bodies of the events about refused readings, numbered by now or not.
const REFUSALS: &str = "SELECT body FROM outbox WHERE event_type = 'MeterReadingValidationFailed'
                        UNION ALL
                        SELECT body FROM events WHERE event_type = 'MeterReadingValidationFailed'";

#[tokio::test]
async fn the_owner_is_notified_of_refused_readings_ten_times_a_minute_and_other_refusals_write_no_event()
 {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let bad = reading(&meter, "250.5", past(3), 15);
    for api in [grid.user("stranger"), grid.admin()] {
        assert!(api.post(SUBMIT, &bad).await.status >= 400);
    }
    for _ in 0..12 {
        assert_eq!(meter.api.post(SUBMIT, &bad).await.status, 400);
    }
    let bodies = eventually("ten refusals are announced", async || {
        let bodies: Vec<String> = sqlx::query_scalar(REFUSALS)
            .fetch_all(&grid.pool)
            .await
            .unwrap();
        (bodies.len() >= 10).then_some(bodies)
    })
    .await;
    assert_eq!(bodies.len(), 10);
    let event: Value = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!(event["type"], "MeterReadingValidationFailed");
    assert_eq!(event["user_id"], "prosumer");
    assert_eq!(event["meter_id"], meter.serial);
    assert_eq!(event["kwh_amount"], "250.5");
    assert_eq!(
        event["error_reason"],
        "Reading validation failed: kwh_amount 250.5 is above this service's limit of 100 kWh per reading; \
         split the interval or ask the operator"
    );
    // Another meter of the same owner has its own limit.
    let other = grid.meter().await;
    meter
        .api
        .post(SUBMIT, &reading(&other, "0", past(3), 15))
        .await;
    eventually("the other meter's refusal is announced", async || {
        let bodies: Vec<String> = sqlx::query_scalar(REFUSALS)
            .fetch_all(&grid.pool)
            .await
            .unwrap();
        bodies
            .iter()
            .any(|body| body.contains(&other.serial))
            .then_some(())
    })
    .await;
}
