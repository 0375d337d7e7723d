//! Meters with the sums of what they have reported.

use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use super::caller::Caller;
use super::error::MeterError;
use super::meter::Meter;

/// Meters in one page unless the caller says otherwise.
pub const METERS_PER_PAGE_DEFAULT: u16 = 100;
/// Meters in one page at most: each costs an aggregate over its readings.
pub const METERS_PER_PAGE_MAX: u16 = 1000;

/// A meter and the sums over its accepted readings.
#[derive(Clone, Debug, FromRow)]
pub struct MeterSummary {
    #[sqlx(flatten)]
    pub meter: Meter,
    /// The number of accepted readings.
    pub readings: i64,
    /// Energy of them, kWh, canonical decimal; a sum may have more digits than one [`Kwh`](crate::domain::Kwh) holds.
    pub kwh_total: String,
    /// The base units that they pay; a sum may exceed the chain's 64 bits.
    pub base_units_total: String,
}

/// Some meters in the order of their serials.
#[derive(Clone, Debug)]
pub struct MeterPage {
    pub meters: Vec<MeterSummary>,
    /// The serial after which the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// The caller's meters, or all of them for an admin, after the serial `after`. `limit` is
/// clamped to
/// 1..=[`METERS_PER_PAGE_MAX`].
pub async fn list(
    pool: &PgPool,
    caller: &Caller,
    after: Option<&str>,
    limit: u16,
) -> Result<MeterPage, MeterError> {
    let page_size = limit.clamp(1, METERS_PER_PAGE_MAX);
    let mut query = page_query(caller, after, page_size);
    let mut meters: Vec<MeterSummary> = query.build_query_as().fetch_all(pool).await?;
    let is_last = meters.len() <= usize::from(page_size);
    meters.truncate(usize::from(page_size));
    let next = meters
        .last()
        .filter(|_| !is_last)
        .map(|last| last.meter.serial.as_str().to_owned());
    Ok(MeterPage { meters, next })
}

/// Selects one row more than the page holds: it shows whether there is a next page.
fn page_query(caller: &Caller, after: Option<&str>, page_size: u16) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT page.*, total.readings, total.kwh_total, total.base_units_total
         FROM (
             SELECT id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at
             FROM meters
             WHERE serial > ",
    );
    query.push_bind(after.unwrap_or_default().to_owned());
    if !caller.is_admin() {
        query.push(" AND owner = ");
        query.push_bind(caller.subject.clone());
    }
    query.push(" ORDER BY serial LIMIT ");
    query.push_bind(i64::from(page_size) + 1);
    query.push(
        ") page
         -- One walk through readings_by_meter for each meter of the page.
         CROSS JOIN LATERAL (
             SELECT count(*) AS readings,
                    trim_scale(COALESCE(sum(kwh), 0))::TEXT AS kwh_total,
                    COALESCE(sum(base_units), 0)::TEXT AS base_units_total
             FROM readings
             WHERE meter = page.id
         ) total
         ORDER BY page.serial",
    );
    query
}
