//! Readings as callers see them: one by its id, and pages.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use uuid::Uuid;

use super::error::ReadingError;
use super::readings_table::{state_literal, stored_interval};
use crate::domain::{BaseUnits, Interval, Kwh, MeterSerial, ReadingState, TxSignature, Wallet};
use crate::meters::{self, Caller};

/// Readings in one page unless the caller says otherwise.
pub const READINGS_PER_PAGE_DEFAULT: u16 = 100;
/// Readings in one page at most.
pub const READINGS_PER_PAGE_MAX: u16 = 1000;

/// A reading with its meter and the transaction that pays it.
#[derive(Clone, Debug)]
pub struct ReadingView {
    pub id: Uuid,
    pub serial: MeterSerial,
    pub owner: String,
    pub kwh: Kwh,
    pub interval: Interval,
    pub wallet: Wallet,
    pub state: ReadingState,
    pub base_units: BaseUnits,
    /// Of the live mint transaction, or else of the last one; base58.
    pub transaction_signature: Option<String>,
    /// Times that preflight, simulation or the chain refused it.
    pub attempts: u32,
    /// `None` unless it waits to be minted.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub last_error: Option<String>,
}

/// Selects the readings of a page.
#[derive(Clone, Debug)]
pub struct ReadingFilter {
    pub meter: Option<MeterSerial>,
    pub state: Option<ReadingState>,
    /// Only readings with a greater id.
    pub after: Option<Uuid>,
    /// Clamped to 1..=[`READINGS_PER_PAGE_MAX`].
    pub limit: u16,
}

/// Some readings in the order of their ids, which is the order of their acceptance.
#[derive(Clone, Debug)]
pub struct ReadingPage {
    pub readings: Vec<ReadingView>,
    /// The id after which the next page begins; `None` at the end.
    pub next: Option<Uuid>,
}

#[derive(FromRow)]
struct ViewRow {
    id: Uuid,
    serial: MeterSerial,
    owner: String,
    kwh: Kwh,
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    wallet: Wallet,
    state: ReadingState,
    base_units: BaseUnits,
    attempts: i32,
    next_attempt_at: DateTime<Utc>,
    last_error: Option<String>,
    signature: Option<TxSignature>,
}

impl TryFrom<ViewRow> for ReadingView {
    type Error = sqlx::Error;

    fn try_from(row: ViewRow) -> Result<ReadingView, sqlx::Error> {
        Ok(ReadingView {
            id: row.id,
            serial: row.serial,
            owner: row.owner,
            kwh: row.kwh,
            interval: stored_interval(row.interval_start, row.interval_end)?,
            wallet: row.wallet,
            state: row.state,
            base_units: row.base_units,
            transaction_signature: row.signature.map(|signature| signature.to_string()),
            attempts: row
                .attempts
                .try_into()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            next_attempt_at: (row.state == ReadingState::Pending).then_some(row.next_attempt_at),
            last_error: row.last_error,
        })
    }
}

/// The reading, if it exists and the caller may see it.
pub async fn find(
    pool: &PgPool,
    caller: &Caller,
    id: Uuid,
) -> Result<Option<ReadingView>, ReadingError> {
    let mut query = QueryBuilder::new("WITH page AS (SELECT ");
    query.push_bind(id).push(" AS id)").push(VIEWS_OF_PAGE);
    let row: Option<ViewRow> = query.build_query_as().fetch_optional(pool).await?;
    let view = row.map(ReadingView::try_from).transpose()?;
    Ok(view.filter(|view| caller.may_see(&view.owner)))
}

/// The caller's readings, or all of them for an admin. Another user's meter gives the same error as one that does not exist.
pub async fn list(
    pool: &PgPool,
    caller: &Caller,
    filter: &ReadingFilter,
) -> Result<ReadingPage, ReadingError> {
    let page_size = filter.limit.clamp(1, READINGS_PER_PAGE_MAX);
    // One more than the page holds shows whether there is a next page.
    let rows_max = i64::from(page_size) + 1;
    let mut query = QueryBuilder::new("WITH page AS (");
    match (&filter.meter, caller.is_admin()) {
        (None, true) => push_ids(&mut query, "TRUE", filter, rows_max),
        (None, false) => {
            push_ids_by_meter(&mut query, filter, rows_max);
            query
                .push("WHERE meter.owner = ")
                .push_bind(caller.subject.clone());
            push_order(&mut query, rows_max);
        }
        (Some(serial), _) => {
            let meter = visible_meter(pool, caller, serial).await?;
            push_ids_by_meter(&mut query, filter, rows_max);
            query.push("WHERE meter.id = ").push_bind(meter);
            push_order(&mut query, rows_max);
        }
    }
    query.push(")").push(VIEWS_OF_PAGE);
    let rows: Vec<ViewRow> = query.build_query_as().fetch_all(pool).await?;
    let mut readings = rows
        .into_iter()
        .map(ReadingView::try_from)
        .collect::<sqlx::Result<Vec<ReadingView>>>()?;
    let is_last = readings.len() <= usize::from(page_size);
    readings.truncate(usize::from(page_size));
    let next = readings.last().filter(|_| !is_last).map(|last| last.id);
    Ok(ReadingPage { readings, next })
}

async fn visible_meter(
    pool: &PgPool,
    caller: &Caller,
    serial: &MeterSerial,
) -> Result<i64, ReadingError> {
    meters::find_by_serial(pool, serial)
        .await?
        .filter(|meter| caller.may_see(&meter.owner))
        .map(|meter| meter.id)
        .ok_or_else(|| ReadingError::UnknownMeter {
            serial: serial.clone(),
        })
}

/// Selects the readings whose ids the query `page` returns.
const VIEWS_OF_PAGE: &str = "
    SELECT reading.id, meter.serial, meter.owner, reading.kwh, reading.interval_start,
           reading.interval_end, reading.wallet, reading.state, reading.base_units, reading.attempts,
           reading.next_attempt_at, reading.last_error, paid.signature
    FROM page
    JOIN readings reading ON reading.id = page.id
    JOIN meters meter ON meter.id = reading.meter
    LEFT JOIN LATERAL (
        SELECT mint.signature
        FROM (
            -- Two halves, each with an index of its own: live_mint_of_reading and dead_mints_of_reading.
            SELECT transaction, live FROM mint_transaction_readings link WHERE link.reading = reading.id AND live
            UNION ALL
            SELECT transaction, live FROM mint_transaction_readings link WHERE link.reading = reading.id AND NOT live
        ) payment
        JOIN mint_transactions mint ON mint.number = payment.transaction
        ORDER BY payment.live DESC, payment.transaction DESC
        LIMIT 1
    ) paid ON TRUE
    ORDER BY reading.id";

/// Ids of the filtered readings that satisfy `condition`, in order.
fn push_ids(
    query: &mut QueryBuilder<Postgres>,
    condition: &'static str,
    filter: &ReadingFilter,
    rows_max: i64,
) {
    query.push("SELECT id FROM readings WHERE ").push(condition);
    query
        .push(" AND id > ")
        .push_bind(filter.after.unwrap_or_default());
    if let Some(state) = filter.state {
        // A literal, so that the planner may use an index of some states.
        query.push(" AND state = ").push(state_literal(state));
    }
    push_order(query, rows_max);
}

/// The same for each meter on its own, so that the index `readings_by_meter` returns each meter's first ones: the few readings
/// of one user are not searched among those of all users. The caller appends which meters.
fn push_ids_by_meter(query: &mut QueryBuilder<Postgres>, filter: &ReadingFilter, rows_max: i64) {
    query.push("SELECT theirs.id FROM meters meter CROSS JOIN LATERAL (");
    push_ids(query, "readings.meter = meter.id", filter, rows_max);
    query.push(") theirs ");
}

fn push_order(query: &mut QueryBuilder<Postgres>, rows_max: i64) {
    query.push(" ORDER BY 1 LIMIT ").push_bind(rows_max);
}
