//! Readings in bulk, each validated independently.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::Grid;
use crate::support::readings::{books_hold, past, reading, shown};

const SUBMIT_MANY: &str = "/api/meters/submit-readings";

#[tokio::test]
async fn a_bad_item_of_a_bulk_never_costs_a_good_one() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let stranger = grid.user("stranger").meter().await;
    let start = past(5);
    let at = |quarter: i64| start + TimeDelta::minutes(15 * quarter);
    let readings = json!([
        reading(&meter, "1", at(0), 15),
        reading(&meter, "-1", at(1), 15),
        reading(&meter, "1.0", at(0), 15),
        reading(&meter, "2", at(0), 15),
        reading(&stranger, "1", at(0), 15),
        ["not", "an", "object"],
        {"meter_id": "a\u{0}b", "kwh_amount": "1", "reading_timestamp": shown(at(2))},
        {"meter_id": meter.serial, "kwh_amount": {"$serde_json::private::Number": "1"},
         "reading_timestamp": shown(at(2))},
        reading(&meter, "1", at(2), 15),
    ]);
    let answer = meter
        .api
        .post(SUBMIT_MANY, &json!({"readings": readings, "unknown": 1}))
        .await
        .ok();
    assert_eq!(
        (
            &answer["accepted"],
            &answer["duplicates"],
            &answer["rejected"]
        ),
        (&json!(2), &json!(1), &json!(6))
    );
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<&str> = results
        .iter()
        .map(|result| result["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            "accepted",
            "rejected",
            "duplicate",
            "rejected",
            "rejected",
            "rejected",
            "rejected",
            "rejected",
            "accepted"
        ]
    );
    let first = &results[0]["reading_id"];
    assert_eq!(
        results[0],
        json!({"index": 0, "status": "accepted", "reading_id": first})
    );
    let negative = "Reading validation failed: kwh_amount -1 is negative; a reading reports energy above 0 kWh";
    assert_eq!(
        results[1],
        json!({"index": 1, "status": "rejected", "problem": {
            "type": "/problems/validation-failed",
            "title": "Validation failed",
            "status": 400,
            "detail": negative,
            "error": negative,
        }})
    );
    assert_eq!(&results[2]["reading_id"], first);
    assert_eq!(&results[3]["problem"]["reading_id"], first);
    let problem_statuses: Vec<&Value> = results
        .iter()
        .map(|result| &result["problem"]["status"])
        .collect();
    assert_eq!(
        problem_statuses,
        [
            &Value::Null,
            &json!(400),
            &Value::Null,
            &json!(409),
            &json!(404),
            &json!(400),
            &json!(400),
            &json!(400),
            &Value::Null
        ]
    );
    books_hold(&grid.pool).await;
}

#[tokio::test]
async fn a_bulk_has_one_to_a_thousand_readings_and_is_an_object() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let thousand: Vec<Value> = (0..1000)
        .map(|minute| reading(&meter, "0.5", past(20) + TimeDelta::minutes(minute), 1))
        .collect();
    let whole = meter
        .api
        .post(SUBMIT_MANY, &json!({"readings": thousand}))
        .await
        .ok();
    assert_eq!(whole["accepted"], 1000);
    let again = meter
        .api
        .post(SUBMIT_MANY, &json!({"readings": thousand}))
        .await
        .ok();
    assert_eq!(again["duplicates"], 1000);
    books_hold(&grid.pool).await;
    let too_many: Vec<Value> = (0..1001).map(|_| json!({})).collect();
    for (body, sentence) in [
        (
            json!({"readings": []}),
            "readings has 0 items; send 1 to 1000 readings at once",
        ),
        (
            json!({"readings": too_many}),
            "readings has 1001 items; send 1 to 1000 readings at once",
        ),
        (
            json!({}),
            "the request body does not fit: missing field `readings` at line 1 column 2",
        ),
        (
            json!([]),
            "the request body is a JSON array; send a JSON object, as `GET /docs` shows it",
        ),
    ] {
        let refused = meter.api.post(SUBMIT_MANY, &body).await;
        assert_eq!(
            (refused.status, refused.body["error"].as_str()),
            (400, Some(sentence))
        );
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_does_not_cost_its_neighbours() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'thirteen is refused'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON readings
         FOR EACH ROW WHEN (NEW.kwh = 13) EXECUTE FUNCTION refuse()",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let start = past(5);
    let readings: Vec<Value> = (0..40)
        .map(|number: i64| {
            let kwh = if number == 17 { "13" } else { "1" };
            reading(&meter, kwh, start + TimeDelta::minutes(number), 1)
        })
        .collect();
    let answer = meter
        .api
        .post(SUBMIT_MANY, &json!({"readings": readings}))
        .await
        .ok();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(39), &json!(1))
    );
    assert_eq!(answer["results"][17]["problem"]["status"], 500);
    assert_eq!(
        answer["results"][17]["problem"]["error"],
        "the reading could not be stored; nothing was stored, tell the operator"
    );
    books_hold(&grid.pool).await;
}
