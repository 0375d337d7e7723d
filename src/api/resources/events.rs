//! `GET /api/events`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::event_cursor::event_cursor;
use crate::api::auth::authenticated::Authenticated;
use crate::api::extract::Query;
use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::api::state::AppState;
use crate::feed::{self, EventsPage, Gap, Seq, Viewer};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

const EVENTS_PER_PAGE_DEFAULT: u16 = 100;
const EVENTS_PER_PAGE_MAX: u16 = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Number of the last event that the client has seen; without it, from the oldest event that is kept.
    #[param(minimum = 0, default = 0)]
    after: Option<i64>,
    /// Most events in the answer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Events after a number.
#[derive(Serialize, ToSchema)]
struct EventsDocument {
    /// In order. A user sees only their own events, so the numbers are not contiguous.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// Highest number assigned so far. After a page with fewer events than `limit`, continue after this number.
    #[schema(value_type = i64)]
    last_seq: Seq,
    /// Lowest number that is still kept.
    #[schema(value_type = i64)]
    oldest_seq: Seq,
    /// Present only when `after` is greater than `last_seq`, or events after it are no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapDocument>,
}

/// Numbers that cannot be delivered, both ends included.
#[derive(Serialize, ToSchema)]
struct GapDocument {
    #[schema(value_type = i64)]
    from: Seq,
    #[schema(value_type = i64)]
    to: Seq,
}

impl From<Gap> for GapDocument {
    fn from(gap: Gap) -> GapDocument {
        GapDocument {
            from: gap.from,
            to: gap.to,
        }
    }
}

impl TryFrom<EventsPage> for EventsDocument {
    type Error = serde_json::Error;

    fn try_from(page: EventsPage) -> Result<EventsDocument, serde_json::Error> {
        let events = page
            .events
            .iter()
            .map(|event| RawValue::from_string(event.document.as_str().to_owned()));
        Ok(EventsDocument {
            events: events.collect::<Result<_, _>>()?,
            last_seq: page.last_seq,
            oldest_seq: page.oldest_seq,
            gap: page.gap.map(GapDocument::from),
        })
    }
}

/// Events after a number: a user's own, for an admin all.
///
/// Numbers are assigned without gaps and in order, so a client that continues after the last number it has seen misses nothing.
/// `GET /ws` uses the same numbers.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "feed",
    security(("bearer" = [])),
    params(EventsQuery),
    responses((status = 200, body = EventsDocument, example = json!({
        "events": [{
            "seq": 42, "id": "01935a6e-7c00-7000-8000-000000000001", "type": "TokensMinted", "version": 1,
            "timestamp": "2026-11-25T04:00:00.000001Z", "user_id": "ausgrid-12", "meter_id": "ausgrid-12-2011-07-01",
            "reading_id": "01935a6e-7800-7000-8000-000000000001", "kwh_amount": "0.123", "tokens_minted": "123000000",
        }],
        "last_seq": 45,
        "oldest_seq": 1,
    }))),
)]
async fn list(
    State(pool): State<PgPool>,
    Authenticated(principal): Authenticated,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventsDocument>, Problem> {
    let after = event_cursor(query.after.unwrap_or_default())?;
    let limit = query.limit.unwrap_or(EVENTS_PER_PAGE_DEFAULT);
    if !(1..=EVENTS_PER_PAGE_MAX).contains(&limit) {
        return Err(Problem::new(
            ProblemKind::MalformedRequest,
            format!("`limit` {limit} is not between 1 and {EVENTS_PER_PAGE_MAX}"),
        ));
    }
    let viewer = Viewer::from(&principal.caller);
    let page = feed::log::page(&pool, &viewer, after, limit).await?;
    EventsDocument::try_from(page)
        .map(Json)
        .map_err(Problem::internal)
}
