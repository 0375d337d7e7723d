//! `POST /api/admin/tokenization/toggle-auto-mint` and `…/auto-mint-percentage`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin;
use crate::api::auth::authenticated::AdminOnly;
use crate::api::extract::JsonBody;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(toggle_auto_mint))
        .routes(routes!(set_auto_mint_percentage))
}

#[derive(Debug, Deserialize, ToSchema)]
struct ToggleAutoMint {
    /// Whether readings are minted without a trigger.
    enabled: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct AutoMintToggled {
    success: bool,
    auto_mint_enabled: bool,
    /// The effect, in words.
    message: &'static str,
}

/// Switches minting without a trigger on or off.
///
/// Applies to all processes once answered, and survives restarts. While it is off, readings are accepted and kept; turning it on
/// mints them at once. Setting the present value changes nothing.
#[utoipa::path(
    post,
    path = "/api/admin/tokenization/toggle-auto-mint",
    tag = "admin",
    security(("bearer" = [])),
    request_body(content = ToggleAutoMint, example = json!({"enabled": false})),
    responses((status = 200, description = "Stored and logged", body = AutoMintToggled, example = json!({
        "success": true,
        "auto_mint_enabled": false,
        "message": "auto-mint is off: readings are accepted and kept until it is turned on, or a batch is triggered",
    })))
)]
async fn toggle_auto_mint(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    JsonBody(toggle): JsonBody<ToggleAutoMint>,
) -> Result<Json<AutoMintToggled>, Problem> {
    let actor = &principal.caller.subject;
    let change = admin::toggle_auto_mint(&pool, actor, toggle.enabled).await?;
    let message = match (change.is_none(), toggle.enabled) {
        (true, true) => "auto-mint was on already: nothing changed",
        (true, false) => "auto-mint was off already: nothing changed",
        (false, true) => {
            "auto-mint is on: readings are minted as they arrive, and those that were kept are minted now"
        }
        (false, false) => {
            "auto-mint is off: readings are accepted and kept until it is turned on, or a batch is triggered"
        }
    };
    Ok(Json(AutoMintToggled {
        success: true,
        auto_mint_enabled: change.now.auto_mint_enabled,
        message,
    }))
}

#[derive(Debug, Deserialize, ToSchema)]
struct SetAutoMintPercentage {
    /// Share of the meters whose readings are minted without a trigger.
    #[schema(minimum = 0, maximum = 100)]
    percentage: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct AutoMintPercentageSet {
    success: bool,
    auto_mint_percentage: i16,
    /// The effect, in words.
    message: String,
}

/// Rolls minting without a trigger out to a share of the meters.
///
/// A stable hash of the serials selects the meters, so a larger share includes those of a smaller one. Raising it mints the kept
/// readings of the added meters at once.
#[utoipa::path(
    post,
    path = "/api/admin/tokenization/auto-mint-percentage",
    tag = "admin",
    security(("bearer" = [])),
    request_body(content = SetAutoMintPercentage, example = json!({"percentage": 30})),
    responses((status = 200, description = "Stored and logged", body = AutoMintPercentageSet, example = json!({
        "success": true,
        "auto_mint_percentage": 30,
        "message": "readings of 30% of the meters are minted without a trigger",
    })))
)]
async fn set_auto_mint_percentage(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    JsonBody(set): JsonBody<SetAutoMintPercentage>,
) -> Result<Json<AutoMintPercentageSet>, Problem> {
    let percentage = u8::try_from(set.percentage)
        .ok()
        .filter(|percentage| *percentage <= 100)
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::ValidationFailed,
                format!(
                    "percentage {} is out of range; give a whole number from 0 to 100",
                    set.percentage
                ),
            )
        })?;
    let actor = &principal.caller.subject;
    let change = admin::set_auto_mint_percentage(&pool, actor, percentage).await?;
    let message = match (change.is_none(), change.now.auto_mint_enabled) {
        (true, _) => format!("the share was {percentage}% already: nothing changed"),
        (false, true) => {
            format!("readings of {percentage}% of the meters are minted without a trigger")
        }
        (false, false) => format!(
            "readings of {percentage}% of the meters will be minted without a trigger once auto-mint is on"
        ),
    };
    Ok(Json(AutoMintPercentageSet {
        success: true,
        auto_mint_percentage: change.now.auto_mint_percentage,
        message,
    }))
}
