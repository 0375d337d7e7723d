//! `POST /api/meters`, `GET /api/meters`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::authenticated::Authenticated;
use crate::api::chain_access::ChainAccess;
use crate::api::extract::{JsonBody, Query};
use crate::api::page;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::state::AppState;
use crate::domain::MeterSerial;
use crate::meters::{
    self, METERS_PER_PAGE_DEFAULT, METERS_PER_PAGE_MAX, Meter, MeterSummary, NewMeter,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(register, list))
}

/// The meter to register.
#[derive(Debug, Deserialize, ToSchema)]
struct NewMeterBody {
    /// The meter's serial: 1 to 64 characters after NFC, letters, digits, punctuation and symbols only.
    meter_id: String,
    /// An ordinary Solana wallet, base58. It cannot be changed.
    wallet_address: String,
    /// Length of a reading without `interval_start`, minutes.
    #[schema(default = 15, minimum = 1, maximum = 1440)]
    interval_minutes: Option<i64>,
    /// Defaults to the caller; only an admin may name another owner.
    #[schema(min_length = 1, max_length = 128)]
    owner: Option<String>,
}

/// A registered meter.
#[derive(Debug, Serialize, ToSchema)]
struct MeterDocument {
    meter_id: String,
    wallet_address: String,
    owner: String,
    interval_minutes: u16,
}

impl From<Meter> for MeterDocument {
    fn from(meter: Meter) -> MeterDocument {
        MeterDocument {
            meter_id: meter.serial.as_str().to_owned(),
            wallet_address: meter.wallet.to_string(),
            owner: meter.owner,
            interval_minutes: meter.interval_minutes,
        }
    }
}

/// Registers a meter.
///
/// An identical repetition gets 200; another owner, wallet or interval gets 409.
#[utoipa::path(
    post,
    path = "/api/meters",
    tag = "meters",
    security(("bearer" = [])),
    request_body(content = NewMeterBody, example = json!({
        "meter_id": "ausgrid-12-2011-07-01",
        "wallet_address": "7cVfgArCheMR6Cs4t6vz5rfnqd56vZq4ndaBrY5xkxXy",
        "interval_minutes": 30,
    })),
    responses(
        (status = 201, description = "Registered now", body = MeterDocument, example = json!({
            "meter_id": "ausgrid-12-2011-07-01",
            "wallet_address": "7cVfgArCheMR6Cs4t6vz5rfnqd56vZq4ndaBrY5xkxXy",
            "owner": "alice",
            "interval_minutes": 30,
        })),
        (status = 200, description = "An identical registration exists", body = MeterDocument),
        (status = 403, description = "Only an admin may name another owner", body = ProblemDocument,
         content_type = "application/problem+json"),
        (status = 409, description = "The meter exists with another owner, wallet or interval", body = ProblemDocument,
         content_type = "application/problem+json"),
    )
)]
async fn register(
    Authenticated(principal): Authenticated,
    State(pool): State<PgPool>,
    State(chain): State<ChainAccess>,
    JsonBody(body): JsonBody<NewMeterBody>,
) -> Result<(StatusCode, Json<MeterDocument>), Problem> {
    let new = NewMeter {
        meter_id: body.meter_id,
        wallet_address: body.wallet_address,
        interval_minutes: body.interval_minutes,
        owner: body.owner,
    };
    let registration =
        meters::register(&pool, &chain.endpoints, &chain.mint, &principal.caller, new).await?;
    let status = if registration.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(registration.meter.into())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MetersQuery {
    /// Only meters whose serial comes after this one: `next` of the previous page.
    after: Option<String>,
    /// Meters in the page, 1 to 1000; 100 by default.
    limit: Option<String>,
}

/// A meter and the sums over its accepted readings.
#[derive(Debug, Serialize, ToSchema)]
struct MeterTotals {
    meter_id: String,
    wallet_address: String,
    owner: String,
    interval_minutes: u16,
    /// Accepted readings.
    readings: i64,
    /// Their energy, kWh.
    kwh_total: String,
    /// The tokens that they are worth, base units.
    base_units_total: String,
}

impl From<MeterSummary> for MeterTotals {
    fn from(summary: MeterSummary) -> MeterTotals {
        let meter = MeterDocument::from(summary.meter);
        MeterTotals {
            meter_id: meter.meter_id,
            wallet_address: meter.wallet_address,
            owner: meter.owner,
            interval_minutes: meter.interval_minutes,
            readings: summary.readings,
            kwh_total: summary.kwh_total,
            base_units_total: summary.base_units_total,
        }
    }
}

/// Meters in the order of their serials.
#[derive(Debug, Serialize, ToSchema)]
struct Meters {
    meters: Vec<MeterTotals>,
    /// `after` of the next page; null at the end.
    next: Option<String>,
}

/// The caller's meters; for an admin, all meters.
#[utoipa::path(
    get,
    path = "/api/meters",
    tag = "meters",
    security(("bearer" = [])),
    params(MetersQuery),
    responses((status = 200, description = "One page", body = Meters, example = json!({
        "meters": [{
            "meter_id": "ausgrid-12-2011-07-01",
            "wallet_address": "7cVfgArCheMR6Cs4t6vz5rfnqd56vZq4ndaBrY5xkxXy",
            "owner": "alice",
            "interval_minutes": 30,
            "readings": 48,
            "kwh_total": "12.345",
            "base_units_total": "12345000000",
        }],
        "next": null,
    })))
)]
async fn list(
    Authenticated(principal): Authenticated,
    State(pool): State<PgPool>,
    Query(query): Query<MetersQuery>,
) -> Result<Json<Meters>, Problem> {
    let limit = page::limit(
        query.limit.as_deref(),
        METERS_PER_PAGE_DEFAULT,
        METERS_PER_PAGE_MAX,
    )?;
    let after = query
        .after
        .map(|after| MeterSerial::parse(&after))
        .transpose()
        .map_err(|error| page::invalid("after", error))?;
    let after = after.as_ref().map(MeterSerial::as_str);
    let page = meters::list(&pool, &principal.caller, after, limit).await?;
    Ok(Json(Meters {
        meters: page.meters.into_iter().map(MeterTotals::from).collect(),
        next: page.next,
    }))
}
