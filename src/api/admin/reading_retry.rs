//! `POST /api/admin/tokenization/readings/{id}/retry`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::{self, RetryRequest, StoredSettings};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::chain_access::ChainAccess;
use crate::api::extract::{JsonBody, Path};
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::resources::readings::ReadingDocument;
use crate::api::state::AppState;
use crate::readings;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(retry))
}

#[derive(Debug, Deserialize, ToSchema)]
struct RetryReading {
    /// The wallet that this reading pays from now on; its meter keeps its own. Unchanged when not given.
    wallet_address: Option<String>,
    /// For the admin log, 1 to 500 characters.
    reason: Option<String>,
}

/// The reading as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct ReadingRetried {
    success: bool,
    /// The next step, in words.
    message: &'static str,
    #[serde(flatten)]
    reading: ReadingDocument,
}

/// Retries a failed or pending reading, at once and with all its attempts.
///
/// If the wallet is the reason (its owner closed the token account or gave it away), another wallet can be given for this
/// reading.
#[utoipa::path(
    post,
    path = "/api/admin/tokenization/readings/{id}/retry",
    tag = "admin",
    security(("bearer" = [])),
    params(("id" = Uuid, Path, description = "`reading_id`")),
    request_body(content = RetryReading, example = json!({
        "wallet_address": "7cVfgArCheMR6Cs4t6vz5rfnqd56vZq4ndaBrY5xkxXy",
        "reason": "the owner lost the key of the old wallet",
    })),
    responses(
        (status = 200, description = "Due now, and logged", body = ReadingRetried, example = json!({
            "success": true,
            "message": "the reading is tried again now",
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
            "next_attempt_at": "2026-11-25T13:00:00.000000Z",
            "last_error": "its token account was closed by its owner: recreate the account, then retry",
        })),
        (status = 404, description = "No such reading", body = ProblemDocument,
         content_type = "application/problem+json"),
        (status = 409, description = "It is neither failed nor pending, see `state`", body = ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
async fn retry(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    State(chain): State<ChainAccess>,
    Path(id): Path<Uuid>,
    JsonBody(request): JsonBody<RetryReading>,
) -> Result<Json<ReadingRetried>, Problem> {
    let retry = RetryRequest {
        reading: id,
        wallet_address: request.wallet_address,
        reason: request.reason,
    };
    let actor = &principal.caller.subject;
    admin::retry_reading(&pool, &chain.endpoints, &chain.mint, actor, retry).await?;
    let settings = StoredSettings::read(&pool).await?.settings;
    let reading = readings::find(&pool, &principal.caller, id)
        .await?
        .ok_or_else(|| Problem::new(ProblemKind::NotFound, format!("reading {id} is not known")))?;
    let message = if settings.mints_automatically(reading.serial.rollout_bucket()) {
        "the reading is tried again now"
    } else if settings.auto_mint_enabled {
        "the reading is due, but its meter is not rolled out: raise the percentage, or trigger a batch"
    } else {
        "the reading is due, but auto-mint is off: turn it on, or trigger a batch"
    };
    Ok(Json(ReadingRetried {
        success: true,
        message,
        reading: reading.into(),
    }))
}
