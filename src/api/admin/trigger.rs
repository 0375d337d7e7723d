//! `POST /api/admin/tokenization/trigger-batch`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::batches::{BatchDocument, example};
use crate::admin::batches::{
    self, BatchFilter, BatchRequest, ClaimSource, Cursor, RESULTS_PER_PAGE_MAX, UnmintedReading,
};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::chain_access::MintingStatus;
use crate::api::extract::JsonBody;
use crate::api::live_feed::LiveFeed;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::chain::ChainError;
use crate::domain::{Backoff, Retries};
use crate::mint::{Estimate, Unminted};

/// The route of a trigger: its answer may take as long as its caller is willing to wait.
pub const TRIGGER_PATH: &str = "/api/admin/tokenization/trigger-batch";

/// How long the answer waits for the batch by default, and at most, seconds.
const WAIT_SECS_DEFAULT: u16 = 30;
pub const WAIT_SECS_MAX: u16 = 300;

/// The pause between two queries of the batch's row.
const POLL_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(50), Duration::from_millis(500));

/// Readings that a dry run examines in one step.
const DRY_RUN_STEP: u16 = 1_000;
/// How long a dry run may take: it examines tens of thousands of readings a second, so some millions. As long as a trigger waits.
const DRY_RUN_LIMIT: Duration = Duration::from_secs(300);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(trigger))
}

/// Selects the readings to mint now; by default all unminted ones.
#[derive(Debug, Deserialize, ToSchema)]
struct TriggerBody {
    /// Mint nothing; return what would be minted and what it would cost.
    #[schema(default = false)]
    dry_run: Option<bool>,
    /// How long the answer waits for the end of the batch, seconds.
    #[schema(default = 30, minimum = 0, maximum = 300)]
    wait_secs: Option<i64>,
    /// Only readings of this meter.
    meter_id: Option<String>,
    /// Only readings of this owner's meters.
    #[schema(min_length = 1, max_length = 128)]
    user_id: Option<String>,
    /// Only readings whose `reading_timestamp`, the interval's end, is before this time; RFC 3339.
    before: Option<String>,
    /// Includes failed readings: they are retried with all their attempts.
    #[schema(default = false)]
    include_failed: Option<bool>,
}

impl TriggerBody {
    fn wait(&self) -> Result<Duration, Problem> {
        let secs = self.wait_secs.unwrap_or(i64::from(WAIT_SECS_DEFAULT));
        u64::try_from(secs)
            .ok()
            .filter(|secs| *secs <= u64::from(WAIT_SECS_MAX))
            .map(Duration::from_secs)
            .ok_or_else(|| {
                Problem::new(
                    ProblemKind::ValidationFailed,
                    format!("wait_secs {secs} is out of range; give a whole number from 0 to {WAIT_SECS_MAX}"),
                )
            })
    }
}

/// The estimate of a trigger.
#[derive(Debug, Serialize, ToSchema)]
struct DryRun {
    /// Always true: nothing was minted.
    dry_run: bool,
    /// Readings that would be submitted to the minter.
    processed_readings: u64,
    /// How many of those would be refused at once: their token account is closed, frozen or given away.
    refused_readings: u64,
    /// Transactions that would pay the others, if nothing else is minted meanwhile.
    transactions: u64,
    /// Token accounts that would be created.
    account_creations: u64,
    /// Fees of the transactions, with the priority fee.
    fee_lamports: u64,
    /// The part of these that is the priority fee, at most; 0 without one.
    priority_fee_lamports: u64,
    /// Rent of the token accounts, in addition to the fees.
    rent_lamports: u64,
}

impl From<Estimate> for DryRun {
    fn from(estimate: Estimate) -> DryRun {
        DryRun {
            dry_run: true,
            processed_readings: estimate.readings,
            refused_readings: estimate.refused,
            transactions: estimate.transactions,
            account_creations: estimate.account_creations,
            fee_lamports: estimate.fee_lamports,
            priority_fee_lamports: estimate.priority_fee_lamports,
            rent_lamports: estimate.rent_lamports,
        }
    }
}

/// Mints unminted readings now, even while auto-mint is off, before a roll-out reaches them, and before a backoff is over.
///
/// A worker runs the batch, one at a time; a reading counts as minted once its transaction is confirmed. The batch continues
/// whether or not the caller waits. It does not include readings that are accepted after the request.
#[utoipa::path(
    post,
    path = "/api/admin/tokenization/trigger-batch",
    tag = "admin",
    security(("bearer" = [])),
    request_body(content = TriggerBody, example = json!({"user_id": "alice", "include_failed": true})),
    responses(
        (status = 200, description = "The batch has ended; or, with `dry_run`, the estimate", body = BatchDocument,
         example = json!(example())),
        (status = 202, description = "The batch continues: `Location` returns the same document with its progress", body = BatchDocument,
         headers(("location" = String, description = "`/api/admin/tokenization/batches/{id}`"))),
        (status = 404, description = "Unknown meter", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
async fn trigger(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    State(minting): State<MintingStatus>,
    State(feed): State<LiveFeed>,
    JsonBody(body): JsonBody<TriggerBody>,
) -> Result<Response, Problem> {
    let wait = body.wait()?;
    let until = Instant::now() + wait;
    let request = BatchRequest {
        meter_id: body.meter_id,
        user_id: body.user_id,
        before: body.before,
        include_failed: body.include_failed.unwrap_or(false),
    };
    let target = request.resolve(&pool).await?;
    if body.dry_run.unwrap_or(false) {
        let estimate = tokio::time::timeout(DRY_RUN_LIMIT, estimate(&pool, &minting, target.filter()))
            .await
            .map_err(|_| {
                Problem::unavailable(
                    "one dry run cannot examine this many readings; narrow it by meter_id, user_id or before",
                )
            })??;
        return Ok(Json(DryRun::from(estimate)).into_response());
    }
    let batch = target.request(&pool, &principal.caller.subject).await?;
    wait_for_end(&pool, &feed.draining, batch, until).await?;
    answer(&pool, batch).await
}

/// Polls the row until the batch has ended, `until` has come, or this process drains.
async fn wait_for_end(
    pool: &PgPool,
    draining: &CancellationToken,
    batch: Uuid,
    until: Instant,
) -> Result<(), Problem> {
    let mut polls = Retries::new(POLL_BACKOFF);
    loop {
        match batches::find(pool, batch).await? {
            Some(view) if !view.state.is_ended() => {}
            _ => return Ok(()),
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = draining.cancelled() => return Ok(()),
            () = tokio::time::sleep(polls.next_delay(0.0).min(left)) => {}
        }
    }
}

async fn answer(pool: &PgPool, batch: Uuid) -> Result<Response, Problem> {
    let document = BatchDocument::read(pool, batch, 0, RESULTS_PER_PAGE_MAX)
        .await?
        .ok_or_else(|| Problem::internal(format!("batch {batch} vanished")))?;
    if document.is_ended() {
        return Ok(Json(document).into_response());
    }
    let mut headers = HeaderMap::new();
    let location = format!("/api/admin/tokenization/batches/{batch}");
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::ACCEPTED, headers, Json(document)).into_response())
}

/// Estimates what the batch would claim, step by step.
async fn estimate(
    pool: &PgPool,
    minting: &MintingStatus,
    filter: &BatchFilter,
) -> Result<Estimate, Problem> {
    let now = Utc::now();
    let mut estimating = minting.estimator.begin().map_err(chain_problem)?;
    let sources: &[ClaimSource] = if filter.include_failed {
        &[ClaimSource::Pending, ClaimSource::Failed]
    } else {
        &[ClaimSource::Pending]
    };
    for source in sources {
        let mut after = Some(Cursor::default());
        while let Some(cursor) = after {
            let (readings, next) =
                batches::preview(pool, filter, *source, now, cursor, DRY_RUN_STEP).await?;
            let readings: Vec<Unminted> = readings.into_iter().map(unminted).collect();
            estimating.add(&readings).await.map_err(chain_problem)?;
            after = next;
        }
    }
    Ok(estimating.end())
}

fn unminted(reading: UnmintedReading) -> Unminted {
    Unminted {
        id: reading.id,
        wallet: reading.wallet,
        base_units: reading.base_units,
        pack_alone: reading.pack_alone,
        account_was_there: reading.account_was_there,
    }
}

fn chain_problem(error: ChainError) -> Problem {
    Problem::unavailable(format!(
        "the chain cannot be queried now: {error}; try again later"
    ))
}
