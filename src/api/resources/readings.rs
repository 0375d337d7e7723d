//! Readings: submitted singly or in bulk, and shown.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::Span;
use tracing::field::display;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api::auth::caller::Authenticated;
use crate::api::extract::{JsonEnvelope, Path, Query};
use crate::api::page;
use crate::api::problem::{Problem, ProblemDocument, ProblemKind};
use crate::api::state::AppState;
use crate::domain::{BaseUnits, Kwh, MeterSerial, ReadingState, rfc3339_micros};
use crate::readings::{
    self, Accepted, READINGS_PER_PAGE_DEFAULT, READINGS_PER_PAGE_MAX, ReadingError, ReadingFilter,
    ReadingView, Submission,
};

/// Readings of one bulk.
const BULK_READINGS_MAX: usize = 1000;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(submit))
        .routes(routes!(submit_many))
        .routes(routes!(show))
        .routes(routes!(list))
}

/// What a meter reported for one interval. For the documentation: requests are read as [`Submission`].
#[derive(ToSchema)]
#[expect(dead_code, reason = "its fields are documentation")]
struct NewReading {
    /// The meter's serial.
    meter_id: String,
    /// Energy of the interval, kWh, above 0: a number or a decimal string. Read exactly, never rounded.
    #[schema(value_type = String, example = "1.25")]
    kwh_amount: Kwh,
    /// The interval's end: RFC 3339 with seconds and offset.
    reading_timestamp: DateTime<Utc>,
    /// The interval's start; the end minus the meter's interval when left out. 1 minute to 24 hours before the end.
    interval_start: Option<DateTime<Utc>>,
    /// Stored with the reading, 1 to 256 printable characters.
    meter_signature: Option<String>,
}

/// The reading is in the books.
#[derive(Debug, Serialize, ToSchema)]
struct ReadingAccepted {
    success: bool,
    message: &'static str,
    reading_id: Uuid,
    /// Whether it was there before.
    duplicate: bool,
    #[schema(value_type = String, example = "pending")]
    state: ReadingState,
    /// What it pays, base units.
    #[schema(value_type = String, example = "1250000000")]
    base_units: BaseUnits,
}

impl From<Accepted> for ReadingAccepted {
    fn from(accepted: Accepted) -> ReadingAccepted {
        ReadingAccepted {
            success: true,
            message: "Meter reading accepted",
            reading_id: accepted.reading_id,
            duplicate: accepted.duplicate,
            state: accepted.state,
            base_units: accepted.base_units,
        }
    }
}

/// Submits one reading.
///
/// The same reading again (the same meter and interval, and an equal amount) is always safe: it gets the same answer with
/// `duplicate: true`.
#[utoipa::path(
    post,
    path = "/api/meters/submit-reading",
    tag = "meters",
    security(("bearer" = [])),
    request_body(content = NewReading, example = json!({
        "meter_id": "ausgrid-12-2011-07-01",
        "kwh_amount": "1.25",
        "reading_timestamp": "2026-11-25T12:30:00Z",
        "interval_start": "2026-11-25T12:00:00Z",
    })),
    responses(
        (status = 200, description = "Stored, now or before", body = ReadingAccepted, example = json!({
            "success": true,
            "message": "Meter reading accepted",
            "reading_id": "019ab9a1-7c00-7000-8000-000000000001",
            "duplicate": false,
            "state": "pending",
            "base_units": "1250000000",
        })),
        (status = 404, description = "Unknown meter, or another user's", body = ProblemDocument,
         content_type = "application/problem+json"),
        (status = 409, description = "Another value for a stored interval, or an overlap; `reading_id` names that reading",
         body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
async fn submit(
    Authenticated(principal): Authenticated,
    State(state): State<AppState>,
    JsonEnvelope(submission): JsonEnvelope<Submission>,
) -> Result<Json<ReadingAccepted>, Problem> {
    let accepted = state.intake.submit(&principal.caller, submission).await?;
    Span::current().record("reading_id", display(accepted.reading_id));
    Ok(Json(accepted.into()))
}

/// Several readings, each judged on its own.
#[derive(Debug, Deserialize, ToSchema)]
struct Bulk {
    #[schema(value_type = Vec<NewReading>, min_items = 1, max_items = 1000)]
    readings: Vec<Box<RawValue>>,
}

/// What became of each reading of a bulk.
#[derive(Debug, Serialize, ToSchema)]
struct BulkAnswer {
    accepted: usize,
    duplicates: usize,
    rejected: usize,
    /// One for each reading, in their order.
    results: Vec<BulkResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BulkStatus {
    Accepted,
    Duplicate,
    Rejected,
}

#[derive(Debug, Serialize, ToSchema)]
struct BulkResult {
    /// Place in the request, from 0.
    index: usize,
    status: BulkStatus,
    /// The reading in the books, unless it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading_id: Option<Uuid>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDocument>)]
    problem: Option<Problem>,
}

/// Submits 1 to 1,000 readings.
///
/// Each is judged on its own: a bad one never costs a good one. Among equal ones the first counts.
#[utoipa::path(
    post,
    path = "/api/meters/submit-readings",
    tag = "meters",
    security(("bearer" = [])),
    request_body(content = Bulk, example = json!({"readings": [
        {"meter_id": "ausgrid-12-2011-07-01", "kwh_amount": 1.25, "reading_timestamp": "2026-11-25T12:30:00Z"},
        {"meter_id": "ausgrid-12-2011-07-01", "kwh_amount": "-1", "reading_timestamp": "2026-11-25T13:00:00Z"},
    ]})),
    responses((status = 200, description = "Judged one by one", body = BulkAnswer, example = json!({
        "accepted": 1,
        "duplicates": 0,
        "rejected": 1,
        "results": [
            {"index": 0, "status": "accepted", "reading_id": "019ab9a1-7c00-7000-8000-000000000001"},
            {"index": 1, "status": "rejected", "problem": {
                "type": "/problems/validation-failed",
                "title": "Validation failed",
                "status": 400,
                "detail": "Reading validation failed: kwh_amount -1 is negative; a reading reports energy above 0 kWh",
                "error": "Reading validation failed: kwh_amount -1 is negative; a reading reports energy above 0 kWh",
            }},
        ],
    })))
)]
async fn submit_many(
    Authenticated(principal): Authenticated,
    State(state): State<AppState>,
    JsonEnvelope(bulk): JsonEnvelope<Bulk>,
) -> Result<Json<BulkAnswer>, Problem> {
    let count = bulk.readings.len();
    if !(1..=BULK_READINGS_MAX).contains(&count) {
        return Err(Problem::new(
            ProblemKind::ValidationFailed,
            format!("readings has {count} items; send 1 to {BULK_READINGS_MAX} readings at once"),
        ));
    }
    let submissions = bulk
        .readings
        .iter()
        .map(|json| Submission::from_json(json.get()).map_err(ReadingError::from))
        .collect();
    let answers = state
        .intake
        .submit_many(&principal.caller, submissions)
        .await;
    let answer = bulk_answer(answers)?;
    Span::current()
        .record("accepted", answer.accepted)
        .record("duplicates", answer.duplicates)
        .record("rejected", answer.rejected);
    Ok(Json(answer))
}

/// When nothing at all could be taken it is the service that is busy, and the whole bulk is to be sent again.
fn bulk_answer(answers: Vec<Result<Accepted, ReadingError>>) -> Result<BulkAnswer, Problem> {
    let results: Vec<BulkResult> = answers
        .into_iter()
        .enumerate()
        .map(|(index, answer)| BulkResult::new(index, answer))
        .collect();
    let was_away = |result: &BulkResult| {
        let kind = result.problem.as_ref().map(Problem::kind);
        kind == Some(ProblemKind::Unavailable)
    };
    if results.iter().all(was_away)
        && let Some(problem) = results.first().and_then(|result| result.problem.clone())
    {
        return Err(problem);
    }
    let count = |status| {
        results
            .iter()
            .filter(|result| result.status == status)
            .count()
    };
    Ok(BulkAnswer {
        accepted: count(BulkStatus::Accepted),
        duplicates: count(BulkStatus::Duplicate),
        rejected: count(BulkStatus::Rejected),
        results,
    })
}

impl BulkResult {
    fn new(index: usize, answer: Result<Accepted, ReadingError>) -> BulkResult {
        match answer {
            Ok(accepted) => BulkResult {
                index,
                status: if accepted.duplicate {
                    BulkStatus::Duplicate
                } else {
                    BulkStatus::Accepted
                },
                reading_id: Some(accepted.reading_id),
                problem: None,
            },
            Err(error) => BulkResult {
                index,
                status: BulkStatus::Rejected,
                reading_id: None,
                problem: Some(error.into()),
            },
        }
    }
}

/// A reading and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadingDocument {
    reading_id: Uuid,
    meter_id: String,
    /// Energy, kWh.
    #[schema(value_type = String, example = "1.25")]
    kwh_amount: Kwh,
    interval_start: String,
    /// The interval's end.
    reading_timestamp: String,
    /// Whom it pays.
    wallet_address: String,
    #[schema(value_type = String, example = "finalized")]
    state: ReadingState,
    /// What it pays, base units.
    #[schema(value_type = String, example = "1250000000")]
    base_units: BaseUnits,
    /// Of the transaction that pays it, or that tried last; null until one was submitted.
    transaction_signature: Option<String>,
    /// Times that the chain refused it.
    attempts: u32,
    /// When it is tried again; null unless it is pending.
    next_attempt_at: Option<String>,
    last_error: Option<String>,
}

impl From<ReadingView> for ReadingDocument {
    fn from(view: ReadingView) -> ReadingDocument {
        ReadingDocument {
            reading_id: view.id,
            meter_id: view.serial.as_str().to_owned(),
            kwh_amount: view.kwh,
            interval_start: rfc3339_micros(view.interval.start()),
            reading_timestamp: rfc3339_micros(view.interval.end()),
            wallet_address: view.wallet.to_string(),
            state: view.state,
            base_units: view.base_units,
            transaction_signature: view.transaction_signature,
            attempts: view.attempts,
            next_attempt_at: view.next_attempt_at.map(rfc3339_micros),
            last_error: view.last_error,
        }
    }
}

/// One reading.
#[utoipa::path(
    get,
    path = "/api/readings/{id}",
    tag = "readings",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "`reading_id`")),
    responses(
        (status = 200, description = "As it is now", body = ReadingDocument, example = json!({
            "reading_id": "019ab9a1-7c00-7000-8000-000000000001",
            "meter_id": "ausgrid-12-2011-07-01",
            "kwh_amount": "1.25",
            "interval_start": "2026-11-25T12:00:00.000000Z",
            "reading_timestamp": "2026-11-25T12:30:00.000000Z",
            "wallet_address": "7cVfgArCheMR6Cs4t6vz5rfnqd56vZq4ndaBrY5xkxXy",
            "state": "pending",
            "base_units": "1250000000",
            "transaction_signature": null,
            "attempts": 0,
            "next_attempt_at": "2026-11-25T12:30:01.000000Z",
            "last_error": null,
        })),
        (status = 404, description = "No such reading, or another user's", body = ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
async fn show(
    Authenticated(principal): Authenticated,
    State(state): State<AppState>,
    Path(id): Path<Uuid>,
) -> Result<Json<ReadingDocument>, Problem> {
    let view = readings::find(&state.pool, &principal.caller, id).await?;
    view.map(|view| Json(view.into())).ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            format!("reading {id} is not known; check the reading_id"),
        )
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReadingsQuery {
    /// Only readings of this meter.
    meter_id: Option<String>,
    /// Only readings in this state: pending, submitted, minted, finalized, failed or quarantined.
    state: Option<String>,
    /// Only readings accepted after this one: `next` of the page before.
    after: Option<String>,
    /// Readings in the page, 1 to 1000; 100 when left out.
    limit: Option<String>,
}

impl ReadingsQuery {
    fn filter(&self) -> Result<ReadingFilter, Problem> {
        let meter = self.meter_id.as_deref().map(MeterSerial::parse);
        let state = self.state.as_deref().map(str::parse::<ReadingState>);
        let after = self.after.as_deref().map(Uuid::parse_str);
        Ok(ReadingFilter {
            meter: meter
                .transpose()
                .map_err(|error| page::refuse("meter_id", error))?,
            state: state
                .transpose()
                .map_err(|error| page::refuse("state", error))?,
            after: after.transpose().map_err(|_| {
                page::refuse("after", "is no reading_id; give `next` of the page before")
            })?,
            limit: page::limit(
                self.limit.as_deref(),
                READINGS_PER_PAGE_DEFAULT,
                READINGS_PER_PAGE_MAX,
            )?,
        })
    }
}

/// Readings in the order of their acceptance.
#[derive(Debug, Serialize, ToSchema)]
struct Readings {
    readings: Vec<ReadingDocument>,
    /// `after` of the next page; null at the end.
    next: Option<Uuid>,
}

/// The caller's readings, for an admin all of them.
#[utoipa::path(
    get,
    path = "/api/readings",
    tag = "readings",
    security(("bearer" = [])),
    params(ReadingsQuery),
    responses(
        (status = 200, description = "One page", body = Readings),
        (status = 404, description = "Unknown meter, or another user's", body = ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
async fn list(
    Authenticated(principal): Authenticated,
    State(state): State<AppState>,
    Query(query): Query<ReadingsQuery>,
) -> Result<Json<Readings>, Problem> {
    let page = readings::list(&state.pool, &principal.caller, &query.filter()?).await?;
    Ok(Json(Readings {
        readings: page
            .readings
            .into_iter()
            .map(ReadingDocument::from)
            .collect(),
        next: page.next,
    }))
}
