//! `GET /api/readings`, `GET /api/readings/{id}`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api::auth::authenticated::Authenticated;
use crate::api::extract::{Path, Query};
use crate::api::page;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::domain::{BaseUnits, Kwh, MeterSerial, ReadingState, rfc3339_micros};
use crate::readings::{
    self, READINGS_PER_PAGE_DEFAULT, READINGS_PER_PAGE_MAX, ReadingFilter, ReadingView,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(list))
}

/// A reading and its present state.
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
    /// The wallet that it pays.
    wallet_address: String,
    #[schema(value_type = String, example = "finalized")]
    state: ReadingState,
    /// The tokens that it is worth, base units.
    #[schema(value_type = String, example = "1250000000")]
    base_units: BaseUnits,
    /// Signature of the transaction that pays it, or of the last attempt; null until one was submitted.
    transaction_signature: Option<String>,
    /// The number of times that the chain has refused it.
    attempts: u32,
    /// When the next attempt is due; null unless it is pending.
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
    State(pool): State<PgPool>,
    Path(id): Path<Uuid>,
) -> Result<Json<ReadingDocument>, Problem> {
    let view = readings::find(&pool, &principal.caller, id).await?;
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
    /// Only readings accepted after this one: `next` of the previous page.
    after: Option<String>,
    /// Readings in the page, 1 to 1000; 100 by default.
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
                .map_err(|error| page::invalid("meter_id", error))?,
            state: state
                .transpose()
                .map_err(|error| page::invalid("state", error))?,
            after: after.transpose().map_err(|_| {
                page::invalid(
                    "after",
                    "is not a reading_id; give `next` of the previous page",
                )
            })?,
            limit: page::limit(
                self.limit.as_deref(),
                READINGS_PER_PAGE_DEFAULT,
                READINGS_PER_PAGE_MAX,
            )?,
        })
    }
}

/// Readings in the order in which they were accepted.
#[derive(Debug, Serialize, ToSchema)]
struct Readings {
    readings: Vec<ReadingDocument>,
    /// `after` of the next page; null at the end.
    next: Option<Uuid>,
}

/// The caller's readings; for an admin, all readings.
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
    State(pool): State<PgPool>,
    Query(query): Query<ReadingsQuery>,
) -> Result<Json<Readings>, Problem> {
    let page = readings::list(&pool, &principal.caller, &query.filter()?).await?;
    Ok(Json(Readings {
        readings: page
            .readings
            .into_iter()
            .map(ReadingDocument::from)
            .collect(),
        next: page.next,
    }))
}
