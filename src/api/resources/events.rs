//! `GET /api/events`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::caller::Authenticated;
use crate::api::extract::Query;
use crate::api::problem::{Problem, ProblemKind};
use crate::api::resources::event_stream;
use crate::api::state::AppState;
use crate::feed::{self, EventsPage, Gap, Seq, Viewer};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(event_stream::stream))
}

const EVENTS_PER_PAGE_DEFAULT: u16 = 100;
const EVENTS_PER_PAGE_MAX: u16 = 1_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Number of the last event that was seen; left out: from the oldest that is kept.
    #[param(minimum = 0, default = 0)]
    after: Option<i64>,
    /// Events in the answer at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// Events after a number.
#[derive(Serialize, ToSchema)]
struct EventsDocument {
    /// In order. A user sees the own events, so their numbers have holes.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// Highest number given so far. When fewer events came than were asked for, go on after it.
    #[schema(value_type = i64)]
    last_seq: Seq,
    /// Lowest number that is still kept.
    #[schema(value_type = i64)]
    oldest_seq: Seq,
    /// Only when `after` is ahead of `last_seq`, or events behind it are no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapDocument>,
}

/// Numbers that cannot be given, both ends included.
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

/// The number that a client names as `after`.
pub(super) fn cursor(after: i64) -> Result<Seq, Problem> {
    Seq::new(after).ok_or_else(|| {
        Problem::new(
            ProblemKind::MalformedRequest,
            "`after` is the number of an event: 0 or more",
        )
    })
}

/// Events after a number: a user's own, for an admin all.
///
/// Numbers are given without gaps and in order, so a client that goes on after the last number it saw misses nothing. The
/// same numbers hold for `GET /ws`.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "feed",
    security(("bearer" = [])),
    params(ListQuery),
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
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<Json<EventsDocument>, Problem> {
    let after = cursor(query.after.unwrap_or_default())?;
    let limit = query.limit.unwrap_or(EVENTS_PER_PAGE_DEFAULT);
    if !(1..=EVENTS_PER_PAGE_MAX).contains(&limit) {
        return Err(Problem::new(
            ProblemKind::MalformedRequest,
            format!("`limit` {limit} is not between 1 and {EVENTS_PER_PAGE_MAX}"),
        ));
    }
    let viewer = Viewer::from(&principal.caller);
    let page = feed::log::page(&state.pool, &viewer, after, limit).await?;
    EventsDocument::try_from(page)
        .map(Json)
        .map_err(Problem::internal)
}
