//! `GET /api/admin/tokenization/batches`, `GET …/batches/{id}`: the progress of sweeps and triggers.

use axum::Json;
use axum::extract::State;
use chrono::Utc;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::batches::{
    self, BatchKind, BatchResult, BatchState, BatchView, RESULTS_PER_PAGE_MAX, ResultsPage,
};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::extract::{Path, Query};
use crate::api::page;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::rfc3339_micros;

/// Batches in one list by default, and at most.
const BATCHES_PER_LIST_DEFAULT: u16 = 20;
const BATCHES_PER_LIST_MAX: u16 = 100;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

/// A batch with its figures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchStats {
    pub batch_id: Uuid,
    /// `sweep` or `trigger`.
    #[schema(value_type = String, example = "trigger")]
    pub kind: &'static str,
    /// `queued`, `running`, `completed`, `failed` (it ended early, `error` says why).
    #[schema(value_type = String, example = "completed")]
    pub state: &'static str,
    /// The admin; null for a sweep.
    pub requested_by: Option<String>,
    pub requested_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    /// From start to end, or until now.
    pub duration_ms: Option<i64>,
    /// Readings that it has claimed so far.
    pub total_readings: u64,
    /// The number of those that have an outcome.
    pub processed_readings: u64,
    /// Minted; for a sweep, submitted is enough.
    pub successful_mints: u64,
    /// Not minted, because of a fault; the state of each reading shows what comes next.
    pub failed_mints: u64,
    /// Neither: they wait for funds, for their backoff, for auto-mint or for confirmation, and are finished without this batch.
    pub waiting_mints: u64,
    /// Why it ended early.
    pub error: Option<String>,
}

impl From<&BatchView> for BatchStats {
    fn from(batch: &BatchView) -> BatchStats {
        let until = batch.finished_at.unwrap_or_else(Utc::now);
        BatchStats {
            batch_id: batch.id,
            kind: batch.kind.as_str(),
            state: batch.state.as_str(),
            requested_by: batch.requested_by.clone(),
            requested_at: rfc3339_micros(batch.requested_at),
            started_at: batch.started_at.map(rfc3339_micros),
            finished_at: batch.finished_at.map(rfc3339_micros),
            duration_ms: batch
                .started_at
                .map(|started_at| (until - started_at).num_milliseconds().max(0)),
            total_readings: batch.figures.total,
            processed_readings: batch.figures.processed(),
            successful_mints: batch.figures.successful,
            failed_mints: batch.figures.failed,
            waiting_mints: batch.figures.waiting,
            error: batch.error.clone(),
        }
    }
}

/// The readings that the trigger selects; null means all.
#[derive(Debug, Serialize, ToSchema)]
struct Filters {
    meter_id: Option<String>,
    user_id: Option<String>,
    before: Option<String>,
    include_failed: bool,
}

/// The outcome of one reading.
#[derive(Debug, Serialize, ToSchema)]
struct ResultDocument {
    reading_id: Uuid,
    success: bool,
    /// It has not failed: `error` says what it waits for.
    waiting: bool,
    /// Signature of the transaction that pays it; null when none does.
    transaction_signature: Option<String>,
    /// Why this batch did not mint it.
    error: Option<String>,
}

impl From<BatchResult> for ResultDocument {
    fn from(result: BatchResult) -> ResultDocument {
        ResultDocument {
            reading_id: result.reading,
            success: result.success,
            waiting: result.waiting,
            transaction_signature: result.signature.map(|signature| signature.to_string()),
            error: result.error,
        }
    }
}

/// A batch, and some of its results.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BatchDocument {
    /// Whether it completed and none of its readings failed. False while it runs, see `state`.
    success: bool,
    #[serde(flatten)]
    stats: BatchStats,
    filters: Filters,
    /// In the order in which they were recorded.
    results: Vec<ResultDocument>,
    /// `after` of the next page, which may be empty while the batch runs. Null after the last result of an ended batch.
    next: Option<i64>,
}

impl BatchDocument {
    fn new(batch: BatchView, page: ResultsPage) -> BatchDocument {
        BatchDocument {
            success: batch.state == BatchState::Completed && batch.figures.failed == 0,
            stats: BatchStats::from(&batch),
            filters: Filters {
                meter_id: batch.meter_id,
                user_id: batch.owner,
                before: batch.ending_before.map(rfc3339_micros),
                include_failed: batch.kind == BatchKind::Trigger && batch.include_failed,
            },
            results: page.results.into_iter().map(ResultDocument::from).collect(),
            next: page.next,
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.stats.finished_at.is_some()
    }

    /// The batch as it is now, with the results after `after`. `None`: it does not exist, or was dropped.
    pub(super) async fn read(
        pool: &PgPool,
        batch: Uuid,
        after: i64,
        limit: u16,
    ) -> sqlx::Result<Option<BatchDocument>> {
        let Some(view) = batches::find(pool, batch).await? else {
            return Ok(None);
        };
        let page = batches::results(pool, batch, view.state.is_ended(), after, limit).await?;
        Ok(Some(BatchDocument::new(view, page)))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BatchesQuery {
    /// Most batches in the answer, 1 to 100; 20 by default.
    limit: Option<String>,
}

/// The newest batches.
#[derive(Debug, Serialize, ToSchema)]
struct Batches {
    /// The newest first, without sweeps that found nothing.
    batches: Vec<BatchStats>,
}

/// The newest batches.
#[utoipa::path(
    get,
    path = "/api/admin/tokenization/batches",
    tag = "admin",
    security(("bearer" = [])),
    params(BatchesQuery),
    responses((status = 200, description = "The newest first", body = Batches))
)]
async fn list(
    _: AdminOnly,
    State(pool): State<PgPool>,
    Query(query): Query<BatchesQuery>,
) -> Result<Json<Batches>, Problem> {
    let limit = page::limit(
        query.limit.as_deref(),
        BATCHES_PER_LIST_DEFAULT,
        BATCHES_PER_LIST_MAX,
    )?;
    let recent = batches::recent(&pool, limit).await?;
    Ok(Json(Batches {
        batches: recent.iter().map(BatchStats::from).collect(),
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BatchQuery {
    /// Only results after this one: `next` of the previous page.
    #[param(value_type = Option<i64>)]
    after: Option<String>,
    /// Results in the page, 1 to 1000; 1000 by default.
    limit: Option<String>,
}

/// One batch, a page of its results at a time.
///
/// While it runs, results are appended, so a client that follows `next` gets each of them once. Kept for 30 days after its end.
#[utoipa::path(
    get,
    path = "/api/admin/tokenization/batches/{id}",
    tag = "admin",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "`batch_id`"), BatchQuery),
    responses(
        (status = 200, description = "As it is now", body = BatchDocument, example = json!(example())),
        (status = 404, description = "No such batch, or it was dropped", body = ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
async fn show(
    _: AdminOnly,
    State(pool): State<PgPool>,
    Path(id): Path<Uuid>,
    Query(query): Query<BatchQuery>,
) -> Result<Json<BatchDocument>, Problem> {
    let limit = page::limit(
        query.limit.as_deref(),
        RESULTS_PER_PAGE_MAX,
        RESULTS_PER_PAGE_MAX,
    )?;
    let after = query.after.as_deref().map_or(Ok(0), |after| {
        after.parse::<u32>().map(i64::from).map_err(|_| {
            page::invalid("after", "is not a number; give `next` of the previous page")
        })
    })?;
    BatchDocument::read(&pool, id, after, limit)
        .await?
        .map(Json)
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::NotFound,
                format!("batch {id} is not known; check the batch_id"),
            )
        })
}

/// A completed batch, for the documentation.
pub(super) fn example() -> serde_json::Value {
    serde_json::json!({
        "success": true,
        "batch_id": "019ab9a1-7c00-7000-8000-000000000001",
        "kind": "trigger",
        "state": "completed",
        "requested_by": "operator",
        "requested_at": "2026-11-25T04:00:00.000000Z",
        "started_at": "2026-11-25T04:00:00.020000Z",
        "finished_at": "2026-11-25T04:00:01.120000Z",
        "duration_ms": 1100,
        "total_readings": 1,
        "processed_readings": 1,
        "successful_mints": 1,
        "failed_mints": 0,
        "waiting_mints": 0,
        "error": null,
        "filters": {"meter_id": null, "user_id": null, "before": null, "include_failed": false},
        "results": [{
            "reading_id": "019ab9a1-7c00-7000-8000-000000000002",
            "success": true,
            "waiting": false,
            "transaction_signature": "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW",
            "error": null,
        }],
        "next": null,
    })
}
