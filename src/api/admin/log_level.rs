//! `GET` and `POST /api/admin/log-level`: the level at which all processes log.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::{self, LOG_LEVEL_CHARACTERS_MAX, LOG_LEVEL_MINUTES_MAX, LogLevel, is_log_level};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::extract::JsonBody;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::rfc3339_micros;

/// Long enough to observe one problem.
const MINUTES_DEFAULT: i64 = 60;
/// How much of an invalid level the error repeats.
const SHOWN_CHARACTERS_MAX: usize = 60;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(log_level, set_log_level))
}

#[derive(Debug, Deserialize, ToSchema)]
struct SetLogLevel {
    /// A level (error, warn, info, debug, trace) or a filter such as `info,gridtokenx::mint=debug`; `null`: each process
    /// uses its LOG_LEVEL again.
    level: Option<String>,
    /// The time for which it applies, minutes.
    #[schema(minimum = 1, maximum = 1440, default = 60)]
    minutes: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LogLevelView {
    /// The level of all processes; `null`: each uses its own LOG_LEVEL.
    level: Option<String>,
    /// The end of that time.
    until: Option<String>,
}

impl From<Option<LogLevel>> for LogLevelView {
    fn from(level: Option<LogLevel>) -> LogLevelView {
        let until = level
            .as_ref()
            .map(|level| rfc3339_micros(level.log_level_until));
        LogLevelView {
            level: level.map(|level| level.log_level),
            until,
        }
    }
}

/// The log level of all processes.
#[utoipa::path(
    get,
    path = "/api/admin/log-level",
    tag = "admin",
    security(("bearer" = [])),
    responses((status = 200, description = "The level that an admin has set, until it ends", body = LogLevelView, example = json!({
        "level": "info,gridtokenx::mint=debug",
        "until": "2026-11-25T05:00:00.000000Z",
    })))
)]
async fn log_level(
    _: AdminOnly,
    State(pool): State<PgPool>,
) -> Result<Json<LogLevelView>, Problem> {
    let level = LogLevel::read(&pool).await?;
    Ok(Json(level.into()))
}

/// Changes the log level of all processes, workers included, for a limited time.
///
/// Takes effect within seconds, survives restarts, and expires: then each process uses its LOG_LEVEL again. Messages of
/// libraries below `info` are never logged.
#[utoipa::path(
    post,
    path = "/api/admin/log-level",
    tag = "admin",
    security(("bearer" = [])),
    request_body(content = SetLogLevel, example = json!({"level": "info,gridtokenx::mint=debug", "minutes": 30})),
    responses((status = 200, description = "Stored and logged", body = LogLevelView, example = json!({
        "level": "info,gridtokenx::mint=debug",
        "until": "2026-11-25T05:00:00.000000Z",
    })))
)]
async fn set_log_level(
    AdminOnly(principal): AdminOnly,
    State(pool): State<PgPool>,
    JsonBody(set): JsonBody<SetLogLevel>,
) -> Result<Json<LogLevelView>, Problem> {
    let level = match set.level.as_deref() {
        Some(level) => Some((checked_level(level)?, checked_minutes(set.minutes)?)),
        None => None,
    };
    let actor = &principal.caller.subject;
    let level = admin::set_log_level(&pool, actor, level).await?;
    Ok(Json(level.into()))
}

fn checked_level(level: &str) -> Result<&str, Problem> {
    if is_log_level(level) {
        return Ok(level);
    }
    let shown: String = level.chars().take(SHOWN_CHARACTERS_MAX).collect();
    Err(Problem::new(
        ProblemKind::ValidationFailed,
        format!(
            "level {shown:?} is not allowed; give a level (error, warn, info, debug, trace) or a filter such as \
             info,gridtokenx::mint=debug, of {LOG_LEVEL_CHARACTERS_MAX} characters at most"
        ),
    ))
}

fn checked_minutes(minutes: Option<i64>) -> Result<u32, Problem> {
    let minutes = minutes.unwrap_or(MINUTES_DEFAULT);
    u32::try_from(minutes)
        .ok()
        .filter(|minutes| (1..=LOG_LEVEL_MINUTES_MAX).contains(minutes))
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::ValidationFailed,
                format!(
                    "minutes {minutes} is out of range; give a whole number from 1 to {LOG_LEVEL_MINUTES_MAX}"
                ),
            )
        })
}
