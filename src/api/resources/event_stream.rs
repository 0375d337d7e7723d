//! `GET /api/events/stream`: the feed as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use crate::api::auth::authenticator::AuthError;
use crate::api::auth::stream_auth::{self, take_stream_permit};
use crate::api::extract::Query;
use crate::api::problem::{Problem, ProblemDocument, ProblemKind};
use crate::api::resources::events::cursor;
use crate::api::server::http_server::{InHandler, Streaming};
use crate::api::state::AppState;
use crate::feed::{Follower, Gap, Seq, Step, StreamKind, StreamPermit, end_of_token};

/// Keeps proxies from taking a quiet stream for a dead one, and tells us of clients that are gone.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Number of the last event that was seen; left out: live from now on. `Last-Event-ID` goes before it.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Single-use ticket of POST /api/ws/ticket, for a browser's EventSource.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

/// nginx and its like collect an answer before they pass it on, unless they are told.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// Live events as server-sent events.
///
/// Each event's `id` is its number, so that a client that is cut off resumes with the header `Last-Event-ID`, as EventSource
/// does by itself. Events have no name; `hello` comes first, `gap` names numbers that cannot be given, and `end` comes last and says
/// why. The stream ends with its token, which comes in the header `Authorization`; an EventSource, which cannot set it, opens its
/// stream with `?ticket=`.
#[utoipa::path(
    get,
    path = "/api/events/stream",
    tag = "feed",
    security(("bearer" = []), ()),
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event that was seen"),
    ),
    responses(
        (
            status = 200,
            content_type = "text/event-stream",
            body = String,
            description = "Events, as they happen",
            example = "id: 41\nevent: hello\ndata: {\"type\":\"hello\",\"seq\":41}\n\nid: 42\ndata: {\"seq\":42,\"type\":\"TokensMinted\"}\n\n",
        ),
        (status = 401, description = "The token or ticket does not count", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "A page of this origin may not listen", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests of this subject", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn stream(
    State(state): State<AppState>,
    connection: Option<Extension<Streaming>>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<impl IntoResponse, Problem> {
    // Before the ticket is used up: the same one counts once the cursor is corrected.
    let after = match last_event_id(&headers)? {
        Some(id) => Some(id),
        None => query.after.map(cursor).transpose()?,
    };
    let listener = stream_auth::authenticate(&state, &uri, &headers)
        .await?
        .ok_or(AuthError::Missing)?;
    let permit = take_stream_permit(&state, StreamKind::ServerSentEvents)?;
    let buffer = state.websocket.event_buffer_size as usize;
    let mut follower = Follower::new(state.feed.clone(), listener.viewer, buffer);
    if let Some(after) = after {
        follower.start_after(after);
    }
    let hello = hello(follower.position());
    let held = Held {
        _permit: permit,
        _open: connection.map(|Extension(connection)| connection.hold()),
    };
    let (tell, told) = oneshot::channel();
    let end = async move {
        let end = tokio::select! {
            retry_after = state.drain_schedule.wait_for_turn(&state.feed) => End::GoingAway { retry_after },
            () = end_of_token(listener.expires_at) => End::TokenExpired,
        };
        let _ = tell.send(end);
    };
    let events = stream::once(async { hello })
        .chain(steps(follower).flat_map(stream::iter))
        // Asked before each event: a client that reads slowly gets none behind the end of its token.
        .take_until(end)
        .chain(last_word(told, held))
        .map(Ok::<Event, Infallible>);
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY));
    Ok(([UNBUFFERED], events))
}

/// Why a stream ends that its client did not leave.
enum End {
    GoingAway { retry_after: Duration },
    TokenExpired,
    LogUnavailable,
}

/// What a stream has until its last word.
struct Held {
    _permit: StreamPermit,
    /// A process that ends waits for the farewell.
    _open: Option<InHandler>,
}

/// Why the stream was ended, if it was.
fn last_word(mut told: oneshot::Receiver<End>, held: Held) -> impl Stream<Item = Event> {
    stream::once(async move {
        let _held = held;
        told.try_recv().ok().map(|end| end_event(&end))
    })
    .filter_map(std::future::ready)
}

/// What there was and what happens; for want of the log, at last that.
fn steps(follower: Follower) -> impl Stream<Item = Vec<Event>> {
    stream::unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        match step(&mut follower).await {
            Ok(events) => Some((events, Some(follower))),
            Err(end) => Some((vec![end_event(&end)], None)),
        }
    })
}

async fn step(follower: &mut Follower) -> Result<Vec<Event>, End> {
    let step = follower.next().await;
    crate::failpoint!("api.before_sse");
    match step {
        Ok(Step::Replayed(events) | Step::Live(events)) => Ok(events
            .iter()
            .map(|event| numbered(event.seq).data(event.document.as_str()))
            .collect()),
        Ok(Step::Gap(gap)) => Ok(vec![gap_event(gap, follower.position())]),
        Err(error) => {
            tracing::warn!(%error, "a stream ends: the event log could not be read");
            Err(End::LogUnavailable)
        }
    }
}

/// For a client that comes back after the event log was away, or with a new token.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// `retry` is obeyed by EventSource by itself.
fn end_event(end: &End) -> Event {
    let (reason, retry_after) = match end {
        End::GoingAway { retry_after } => ("going_away", *retry_after),
        End::TokenExpired => ("token_expired", RETRY_AFTER),
        End::LogUnavailable => ("log_unavailable", RETRY_AFTER),
    };
    let retry_after_ms = retry_after.as_millis();
    Event::default()
        .event("end")
        .retry(retry_after)
        .data(format!(
            r#"{{"type":"end","reason":"{reason}","retry_after_ms":{retry_after_ms}}}"#
        ))
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
