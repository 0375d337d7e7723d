//! `GET /ws`: who may come in. What is said inside is the feed's.

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::bearer_token;
use super::authenticator::{AuthError, Principal};
use super::problem::{Problem, ProblemDocument, ProblemKind};
use super::state::AppState;
use crate::feed::{
    self, CLIENT_MESSAGE_BYTES_MAX, ClientMessage, CloseReason, Listener, Seat, StreamKind,
    StreamLimits, Viewer,
};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(handler))
}

/// For the first message of a client that sent no header, and the check of its token.
const AUTH_LIMIT: Duration = Duration::from_secs(5);
/// Clients say little, and there are many: the library's 128 KiB each would be a gigabyte and more.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// How the other end is known.
enum Entrance {
    Known(Listener),
    ByFirstMessage,
}

/// Live events over a WebSocket.
///
/// A token comes in the header `Authorization`, or from browsers, which cannot set it, in the first message
/// `{"type":"auth","token":"…"}` within 5 s. The messages are described in `docs/feed.md`.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "feed",
    security(("bearer" = []), ()),
    responses(
        (status = 101, description = "The stream is open"),
        (status = 401, description = "The token does not count", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "A page of this origin may not listen", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 426, description = "The request asks for no WebSocket", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests of this subject", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn handler(
    State(state): State<AppState>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Problem> {
    check_origin(&headers, &state.cors_origins)?;
    let entrance = match bearer_token(&headers) {
        Ok(token) => Entrance::Known(admit(&state, token).await?),
        Err(AuthError::Missing) if state.websocket.auth_required => Entrance::ByFirstMessage,
        Err(AuthError::Missing) => Entrance::Known(Listener {
            viewer: Viewer::Anonymous,
            expires_at: None,
        }),
        Err(error) => return Err(error.into()),
    };
    let seat = take_seat(&state, StreamKind::WebSocket)?;
    // Counted from here on, so that the drain waits for it.
    let task = state.connections.token();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_frame_size(CLIENT_MESSAGE_BYTES_MAX)
        .on_upgrade(async move |socket| {
            serve(socket, &state, entrance).await;
            drop((seat, task));
        }))
}

/// A place for a stream of this process.
pub(super) fn take_seat(state: &AppState, kind: StreamKind) -> Result<Seat, Problem> {
    if state.draining.is_cancelled() {
        return Err(Problem::unavailable(
            "this process ends; connect again, and another one answers",
        ));
    }
    let seats = state.websocket.max_connections;
    state.feed.seat(kind, seats).ok_or_else(|| {
        Problem::unavailable(format!(
            "all {seats} streams of this process are taken; try again later, or use GET /api/events"
        ))
    })
}

async fn serve(mut socket: WebSocket, state: &AppState, entrance: Entrance) {
    let listener = match entrance {
        Entrance::Known(listener) => Ok(listener),
        Entrance::ByFirstMessage => tokio::select! {
            () = state.draining.cancelled() => Err(CloseReason::GoingAway),
            listener = timeout(AUTH_LIMIT, first_message(&mut socket, state)) => {
                listener.unwrap_or_else(|_| Err(CloseReason::Unauthorized(format!(
                    "no {{\"type\":\"auth\",\"token\":…}} came within {} s",
                    AUTH_LIMIT.as_secs()
                ))))
            }
        },
    };
    match listener {
        Ok(listener) => {
            let limits = StreamLimits {
                pushes_per_minute: state.websocket.rate_limit_events_per_minute,
                buffer_events: state.websocket.event_buffer_size as usize,
            };
            let (hub, stop) = (state.feed.clone(), state.draining.clone());
            feed::serve_socket(socket, hub, listener, limits, stop).await;
        }
        Err(reason) => feed::close(socket, &reason).await,
    }
}

/// The first message must be a valid token. Until then nothing is sent.
async fn first_message(socket: &mut WebSocket, state: &AppState) -> Result<Listener, CloseReason> {
    let refused = |sentence: String| Err(CloseReason::Unauthorized(sentence));
    while let Some(message) = socket.recv().await {
        match message? {
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return Err(CloseReason::Left),
            Message::Binary(_) => return refused("the first message must be auth".to_owned()),
            Message::Text(text) => {
                let Ok(ClientMessage::Auth { token }) = ClientMessage::parse(&text) else {
                    return refused("the first message must be auth, with a token".to_owned());
                };
                return match admit(state, &token).await {
                    Ok(listener) => Ok(listener),
                    Err(problem) if problem.kind() == ProblemKind::RateLimited => {
                        Err(CloseReason::TooManyRequests)
                    }
                    Err(problem) => refused(problem.sentence().to_owned()),
                };
            }
        }
    }
    Err(CloseReason::Left)
}

/// A connection counts as a request of its subject: a client that reconnects in a circle is slowed down.
async fn admit(state: &AppState, token: &str) -> Result<Listener, Problem> {
    let Principal { caller, expires_at } = state.authenticator.verify(token).await?;
    state.rate_limiter.admit(&caller.subject)?;
    Ok(Listener {
        viewer: Viewer::from(&caller),
        expires_at: Some(expires_at),
    })
}

/// Browsers let any page open a WebSocket to us and tell where the page is from. With a list of origins, only those and
/// our own pages may.
fn check_origin(headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    if allowed.is_empty() || allowed.contains(origin) || is_own(origin, headers) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Forbidden,
        "pages of this origin may not listen here; the operator lists those that may in CORS_ORIGINS",
    ))
}

fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let authority = |origin: &HeaderValue| {
        let (_, authority) = origin.to_str().ok()?.split_once("://")?;
        Some(authority.to_ascii_lowercase())
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_ascii_lowercase);
    host.is_some() && authority(origin) == host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_a_list_only_its_origins_and_our_own_pages_come_in() {
        let listed = [HeaderValue::from_static("https://grid.example")];
        let comes_in = |origin: Option<&str>, allowed: &[HeaderValue]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "api.grid.example:8080".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            check_origin(&headers, allowed).is_ok()
        };
        assert!(comes_in(None, &listed));
        assert!(comes_in(Some("https://grid.example"), &listed));
        assert!(comes_in(Some("http://API.grid.example:8080"), &listed));
        assert!(!comes_in(Some("https://evil.example"), &listed));
        assert!(!comes_in(Some("http://api.grid.example"), &listed));
        assert!(!comes_in(Some("null"), &listed));
        assert!(comes_in(Some("https://evil.example"), &[]));
    }
}
