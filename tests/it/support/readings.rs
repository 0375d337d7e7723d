//! Readings as the tests send them, and a look at the books.

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
