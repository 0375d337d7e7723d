//! `POST /api/ws/ticket`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::authenticated::Authenticated;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::serialize_rfc3339_micros;
use crate::feed::tickets::{self, LIFETIME, TicketError};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// A ticket for one stream.
#[derive(Serialize, ToSchema)]
struct TicketDocument {
    /// The value of `?ticket=`, as it is.
    ticket: String,
    /// RFC 3339, UTC.
    #[serde(serialize_with = "serialize_rfc3339_micros")]
    expires_at: DateTime<Utc>,
}

/// Issues a ticket that opens one stream.
///
/// For pages, which cannot set a header: `GET /ws?ticket=…` or `GET /api/events/stream?ticket=…` within 30 s, on any process. A
/// ticket is valid once. The stream has the caller's rights, and ends when the token of this request does.
#[utoipa::path(
    post,
    path = "/api/ws/ticket",
    tag = "feed",
    security(("bearer" = [])),
    responses((
        status = 200,
        body = TicketDocument,
        example = json!({"ticket": "q3J0…", "expires_at": "2026-11-25T04:00:30.000001Z"}),
    )),
)]
async fn issue(
    State(pool): State<PgPool>,
    Authenticated(principal): Authenticated,
) -> Result<impl IntoResponse, Problem> {
    let issued = tickets::issue(&pool, &principal.caller, principal.expires_at).await;
    let ticket = issued.map_err(|error| match error {
        TicketError::TooMany => {
            Problem::new(ProblemKind::RateLimited, error.to_string()).retry_after(LIFETIME)
        }
        TicketError::Database(error) => error.into(),
    })?;
    let document = TicketDocument {
        ticket: ticket.ticket,
        expires_at: ticket.expires_at,
    };
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(document)))
}
