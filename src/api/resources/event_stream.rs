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
use tokio_util::task::task_tracker::TaskTrackerToken;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::event_cursor::event_cursor;
use crate::api::auth::stream_auth::StreamAuth;
use crate::api::extract::Query;
use crate::api::live_feed::LiveFeed;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::server::connection_activity::OpenStreams;
use crate::api::state::AppState;
use crate::domain::AuthError;
use crate::feed::{Follower, Gap, Seq, Step, StreamKind, StreamPermit, end_of_token};

/// A comment at this pace keeps proxies from closing a quiet stream as dead, and detects clients that have disconnected.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stream))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Number of the last event that the client has seen; without it, events from now on. `Last-Event-ID` takes precedence.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Single-use ticket of POST /api/ws/ticket, for a browser's EventSource.
    #[serde(rename = "ticket")]
    _ticket: Option<String>,
}

/// nginx and similar proxies buffer an answer unless this header disables it.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);

/// Live events as server-sent events.
///
/// Each event's `id` is its number, so that a client that is disconnected resumes with the header `Last-Event-ID`, as EventSource
/// does automatically. Events have no name; `hello` comes first, `gap` lists numbers that cannot be delivered, and `end` comes last
/// and gives the reason. The stream ends with its token, which comes in the header `Authorization`; an EventSource, which cannot
/// set it, opens its stream with `?ticket=`.
#[utoipa::path(
    get,
    path = "/api/events/stream",
    tag = "feed",
    security(("bearer" = []), ()),
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event that the client has seen"),
    ),
    responses(
        (
            status = 200,
            content_type = "text/event-stream",
            body = String,
            description = "Events, as they happen",
            example = "id: 41\nevent: hello\ndata: {\"type\":\"hello\",\"seq\":41}\n\nid: 42\ndata: {\"seq\":42,\"type\":\"TokensMinted\"}\n\n",
        ),
        (status = 401, description = "The token or ticket is not valid", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "Pages of this origin may not open a stream", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests of this subject", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
async fn stream(
    State(auth): State<StreamAuth>,
    State(feed): State<LiveFeed>,
    connection: Option<Extension<OpenStreams>>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<impl IntoResponse, Problem> {
    // Before the ticket is redeemed: the same ticket stays valid for a request with a correct cursor.
    let after = match last_event_id(&headers)? {
        Some(id) => Some(id),
        None => query.after.map(event_cursor).transpose()?,
    };
    let listener = auth
        .authenticate(&uri, &headers)
        .await?
        .ok_or(AuthError::Missing)?;
    let held = Held {
        _permit: feed.take_permit(StreamKind::ServerSentEvents)?,
        _open: connection.map(|Extension(streams)| streams.hold()),
    };
    let mut follower = Follower::new(feed.hub.clone(), listener.viewer, feed.buffer_events());
    if let Some(after) = after {
        follower.start_after(after);
    }
    let hello = hello(follower.position());
    let (end_sender, end) = oneshot::channel();
    let ended = async move {
        let end = tokio::select! {
            retry_after = feed.drain_schedule.wait_for_turn(&feed.hub) => End::GoingAway { retry_after },
            () = end_of_token(listener.expires_at) => End::TokenExpired,
        };
        let _ = end_sender.send(end);
    };
    let events = stream::once(async { hello })
        .chain(steps(follower).flat_map(stream::iter))
        // Polled before each event: a client that reads slowly receives none after the end of its token.
        .take_until(ended)
        .chain(last_event(end, held))
        .map(Ok::<Event, Infallible>);
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY));
    Ok(([UNBUFFERED], events))
}

/// The reason for which the service ends a stream.
enum End {
    GoingAway { retry_after: Duration },
    TokenExpired,
    LogUnavailable,
}

/// Held by a stream until its last event is sent.
struct Held {
    _permit: StreamPermit,
    /// During a drain the connection stays open for the last event.
    _open: Option<TaskTrackerToken>,
}

/// Says why the stream was ended, if it was.
fn last_event(mut end: oneshot::Receiver<End>, held: Held) -> impl Stream<Item = Event> {
    stream::once(async move {
        let _held = held;
        end.try_recv().ok().map(|end| end_event(&end))
    })
    .filter_map(std::future::ready)
}

/// Past events, then those that happen; when the log cannot be read, the end.
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
            tracing::warn!(%error, "event stream ended: the event log could not be read");
            Err(End::LogUnavailable)
        }
    }
}

/// For a client that reconnects after an outage of the event log, or with a new token.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// EventSource itself obeys `retry`.
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

/// Gives a client a number to resume from if it is disconnected before its first event.
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
