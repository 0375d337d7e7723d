//! `POST /api/meters/submit-reading`, `POST /api/meters/submit-readings`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tracing::Span;
use tracing::field::display;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api::auth::authenticated::Authenticated;
use crate::api::extract::JsonEnvelope;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::{BaseUnits, Kwh, ReadingState};
use crate::readings::{Accepted, Intake, ReadingError, Submission};

/// Most readings in one bulk request.
const BULK_READINGS_MAX: usize = 1000;

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(submit))
        .routes(routes!(submit_many))
}

/// A meter's report for one interval. Only documents the request, which is parsed as [`Submission`].
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
    /// The interval's start; by default the end minus the meter's interval. 1 minute to 24 hours before the end.
    interval_start: Option<DateTime<Utc>>,
    /// Stored with the reading, 1 to 256 printable characters.
    meter_signature: Option<String>,
}

/// The reading is stored.
#[derive(Debug, Serialize, ToSchema)]
struct ReadingAccepted {
    success: bool,
    message: &'static str,
    reading_id: Uuid,
    /// Whether it was stored before.
    duplicate: bool,
    #[schema(value_type = String, example = "pending")]
    state: ReadingState,
    /// The tokens that it is worth, base units.
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
/// Repeating a reading (the same meter and interval, and an equal amount) is always safe: the answer is the same with
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
    State(intake): State<Intake>,
    JsonEnvelope(submission): JsonEnvelope<Submission>,
) -> Result<Json<ReadingAccepted>, Problem> {
    let accepted = intake.submit(&principal.caller, submission).await?;
    Span::current().record("reading_id", display(accepted.reading_id));
    Ok(Json(accepted.into()))
}

/// Several readings, each validated on its own.
#[derive(Debug, Deserialize, ToSchema)]
struct Bulk {
    #[schema(value_type = Vec<NewReading>, min_items = 1, max_items = 1000)]
    readings: Vec<Box<RawValue>>,
}

/// The result of each reading of a bulk.
#[derive(Debug, Serialize, ToSchema)]
struct BulkAnswer {
    accepted: usize,
    duplicates: usize,
    rejected: usize,
    /// One per reading, in the order of the request.
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
    /// Position in the request, from 0.
    index: usize,
    status: BulkStatus,
    /// The stored reading, unless it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    reading_id: Option<Uuid>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDocument>)]
    problem: Option<Problem>,
}

/// Submits 1 to 1,000 readings.
///
/// Each is validated on its own: an invalid one never affects a valid one. Of equal ones, the first is stored.
#[utoipa::path(
    post,
    path = "/api/meters/submit-readings",
    tag = "meters",
    security(("bearer" = [])),
    request_body(content = Bulk, example = json!({"readings": [
        {"meter_id": "ausgrid-12-2011-07-01", "kwh_amount": 1.25, "reading_timestamp": "2026-11-25T12:30:00Z"},
        {"meter_id": "ausgrid-12-2011-07-01", "kwh_amount": "-1", "reading_timestamp": "2026-11-25T13:00:00Z"},
    ]})),
    responses((status = 200, description = "The result of each reading", body = BulkAnswer, example = json!({
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
    State(intake): State<Intake>,
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
    let answers = intake.submit_many(&principal.caller, submissions).await;
    let answer = bulk_answer(answers)?;
    Span::current()
        .record("accepted", answer.accepted)
        .record("duplicates", answer.duplicates)
        .record("rejected", answer.rejected);
    Ok(Json(answer))
}

/// When no reading was stored because the service was unavailable, the whole bulk is refused, to be sent again.
fn bulk_answer(answers: Vec<Result<Accepted, ReadingError>>) -> Result<BulkAnswer, Problem> {
    let results: Vec<BulkResult> = answers
        .into_iter()
        .enumerate()
        .map(|(index, answer)| BulkResult::new(index, answer))
        .collect();
    let is_unavailable = |result: &BulkResult| {
        let kind = result.problem.as_ref().map(Problem::kind);
        kind == Some(ProblemKind::Unavailable)
    };
    if results.iter().all(is_unavailable)
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
