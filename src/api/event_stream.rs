//! `GET /api/events/stream`: the feed as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::auth::Authenticated;
use super::events::cursor;
use super::extract::Query;
use super::problem::{Problem, ProblemKind};
use super::state::AppState;
use super::websocket::take_seat;
use crate::feed::{Follower, Gap, Seat, Seq, Step, StreamKind, Viewer, end_of_token};

/// Keeps proxies from taking a quiet stream for a dead one, and tells us of clients that are gone.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Number of the last event that was seen; left out: live from now on. `Last-Event-ID` goes before it.
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// Live events as server-sent events.
///
/// Each event's `id` is its number, so that a client that is cut off resumes with the header `Last-Event-ID`, as EventSource
/// does by itself. Events have no name; `hello` comes first, and `gap` names numbers that cannot be given. The stream ends
/// with its token.
#[utoipa::path(
    get,
    path = "/api/events/stream",
    tag = "feed",
    security(("bearer" = [])),
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event that was seen"),
    ),
    responses((
        status = 200,
        content_type = "text/event-stream",
        body = String,
        example = "id: 41\nevent: hello\ndata: {\"type\":\"hello\",\"seq\":41}\n\nid: 42\ndata: {\"seq\":42,\"type\":\"TokensMinted\"}\n\n",
    )),
)]
pub(super) async fn stream(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let after = match last_event_id(&headers)? {
        Some(id) => Some(id),
        None => query.after.map(cursor).transpose()?,
    };
    let seat = take_seat(&state, StreamKind::ServerSentEvents)?;
    let viewer = Viewer::from(&principal.caller);
    let buffer = state.websocket.event_buffer_size as usize;
    let mut follower = Follower::new(state.feed.clone(), viewer, buffer);
    if let Some(after) = after {
        follower.start_after(after);
    }
    let hello = hello(follower.position());
    let draining = state.draining.clone();
    let end = async move {
        tokio::select! {
            () = draining.cancelled() => {}
            () = end_of_token(Some(principal.expires_at)) => {}
        }
    };
    let events = stream::once(async { hello })
        .chain(steps(follower, seat).flat_map(stream::iter))
        .map(Ok)
        .take_until(Box::pin(end));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

/// Until the log cannot be read: the client comes back and resumes.
fn steps(follower: Follower, seat: Seat) -> impl Stream<Item = Vec<Event>> {
    stream::unfold((follower, seat), async |(mut follower, seat)| {
        let events = match follower.next().await {
            Ok(Step::Replayed(events) | Step::Live(events)) => events
                .iter()
                .map(|event| numbered(event.seq).data(event.document.as_str()))
                .collect(),
            Ok(Step::Gap(gap)) => vec![gap_event(gap, follower.position())],
            Err(error) => {
                tracing::warn!(%error, "a stream ends: the event log could not be read");
                return None;
            }
        };
        Some((events, (follower, seat)))
    })
}

fn numbered(seq: Seq) -> Event {
    Event::default().id(seq.to_string())
}

/// Gives a client that is cut off before its first event a number to resume from.
fn hello(seq: Seq) -> Event {
    numbered(seq)
        .event("hello")
        .data(format!(r#"{{"type":"hello","seq":{seq}}}"#))
}

fn gap_event(gap: Gap, position: Seq) -> Event {
    let Gap { from, to } = gap;
    numbered(position)
        .event("gap")
        .data(format!(r#"{{"type":"gap","from":{from},"to":{to}}}"#))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.and_then(Seq::new).map(Some).ok_or_else(|| {
        Problem::new(
            ProblemKind::MalformedRequest,
            "`Last-Event-ID` is the number of an event: 0 or more",
        )
    })
}
