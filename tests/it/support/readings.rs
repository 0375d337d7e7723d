//! Readings as the tests send them, and as they are stored.

use chrono::{DateTime, DurationRound, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::Meter;

/// A full hour that lies at least this far back.
pub fn past(hours: i64) -> DateTime<Utc> {
    (Utc::now() - TimeDelta::hours(hours))
        .duration_trunc(TimeDelta::hours(1))
        .unwrap()
}

pub fn shown(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

pub fn reading(meter: &Meter, kwh: &str, start: DateTime<Utc>, minutes: i64) -> Value {
    json!({
        "meter_id": meter.serial,
        "kwh_amount": kwh,
        "interval_start": shown(start),
        "reading_timestamp": shown(start + TimeDelta::minutes(minutes)),
    })
}

pub async fn count(pool: &PgPool, what: &'static str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.unwrap()
}

/// What must hold of every database at any time.
pub async fn books_hold(pool: &PgPool) {
    let unguarded = "SELECT count(*) FROM readings
                     LEFT JOIN metered_intervals guard ON guard.reading = readings.id
                     WHERE guard.reading IS NULL";
    assert_eq!(
        count(pool, unguarded).await,
        0,
        "every reading has its guarded interval"
    );
    let overlapping = "SELECT count(*) FROM readings one
                       JOIN readings other ON other.meter = one.meter AND other.id <> one.id
                        AND other.interval_start < one.interval_end
                        AND one.interval_start < other.interval_end";
    assert_eq!(count(pool, overlapping).await, 0, "no moment is paid twice");
    let without_job = "SELECT count(*) FROM readings
                       LEFT JOIN apalis.jobs ON jobs.job_type = 'MintReading'
                        AND jobs.idempotency_key = readings.id::TEXT
                       WHERE jobs.id IS NULL";
    assert_eq!(
        count(pool, without_job).await,
        0,
        "every reading has its job"
    );
    let announced = "SELECT (SELECT count(*) FROM outbox WHERE event_type = 'MeterReadingReceived')
                          + (SELECT count(*) FROM events WHERE event_type = 'MeterReadingReceived')";
    let readings = count(pool, "SELECT count(*) FROM readings").await;
    assert_eq!(
        count(pool, announced).await,
        readings,
        "every reading is announced once"
    );
}
