//! `GET /ws`: the way in. What is said inside is the feed's.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, Uri, header};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::stream_auth::{self, PROTOCOL, authenticate_token, take_stream_permit};
use crate::api::auth::ticket;
use crate::api::problem::{Problem, ProblemDocument, ProblemKind};
use crate::api::server::http_server::Place;
use crate::api::state::AppState;
use crate::feed::{
    self, AuthFailure, ClientMessage, CloseReason, Listener, StreamKind, StreamLimits, Viewer,
};
use crate::websocket::{Compression, HandshakeError, Incoming, Socket, Upgrade};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(handler))
        .routes(routes!(ticket::issue))
}

/// For the first message of a client that showed nothing, and the check of its token.
const AUTH_LIMIT: Duration = Duration::from_secs(5);

/// Pings and pongs of a client that has not said who it is.
const SIGNS_BEFORE_AUTH_MAX: u32 = 10;

/// How the other end is known.
enum Entrance {
    Known(Listener),
    ByFirstMessage,
}

/// Live events over a WebSocket.
///
/// A token comes in the header `Authorization`. Pages, which cannot set it, put a ticket of `POST /api/ws/ticket` into
/// `?ticket=`, or name the protocols `gridtokenx` and `bearer.TOKEN`, or send the first message
/// `{"type":"auth","token":"…"}` within 5 s. A token is never taken from the URL. The messages are described in `docs/feed.md`.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "feed",
    security(("bearer" = []), ()),
    params(
        ("ticket" = Option<String>, Query, description = "Single-use ticket of POST /api/ws/ticket"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`gridtokenx`, and from pages `bearer.TOKEN` beside it; `gridtokenx` alone is answered"),
        ("Sec-WebSocket-Extensions" = Option<String>, Header, description = "`permessage-deflate` is accepted unless the operator switched it off"),
    ),
    responses(
        (status = 101, description = "The stream is open"),
        (status = 401, description = "The token or ticket does not count", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "A page of this origin may not listen", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 426, description = "The request asks for no WebSocket", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests of this subject", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn handler(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    place: Option<Extension<Place>>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Problem> {
    let entrance = match stream_auth::authenticate(&state, &uri, &headers).await? {
        Some(listener) => Entrance::Known(listener),
        None if state.websocket.auth_required => Entrance::ByFirstMessage,
        None => Entrance::Known(Listener {
            viewer: Viewer::Anonymous,
            expires_at: None,
        }),
    };
    let permit = take_stream_permit(&state, StreamKind::WebSocket)?;
    let protocol = stream_auth::protocols(&headers)
        .any(|name| name == PROTOCOL)
        .then(|| HeaderValue::from_static(PROTOCOL));
    let compression = if state.websocket.compression_enabled {
        Compression::Deflate
    } else {
        Compression::None
    };
    let (answer, pending) = upgrade.accept(compression, protocol);
    // Counted from here on, so that the drain waits for it. The permit is the task's own: it is free however the task ends.
    let tasks = state.connections.clone();
    tasks.spawn(async move {
        let _held = (permit, place);
        match pending.open().await {
            Ok(socket) => serve(socket, &state, entrance).await,
            Err(error) => tracing::debug!(%error, "a client went away before its stream was open"),
        }
    });
    Ok(answer)
}

impl FromRequestParts<AppState> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Upgrade, Problem> {
        Upgrade::from_request(parts).map_err(|fault| match fault {
            // RFC 6455, section 4.4: the answer tells which version is spoken.
            HandshakeError::NotAnUpgrade => {
                Problem::new(ProblemKind::UpgradeRequired, fault.to_string())
                    .header(header::UPGRADE, HeaderValue::from_static("websocket"))
                    .header(
                        header::SEC_WEBSOCKET_VERSION,
                        HeaderValue::from_static("13"),
                    )
            }
            HandshakeError::InvalidKey => {
                Problem::new(ProblemKind::MalformedRequest, fault.to_string())
            }
        })
    }
}

async fn serve(mut socket: Socket, state: &AppState, entrance: Entrance) {
    let mut listener = match entrance {
        Entrance::Known(listener) => Ok(listener),
        Entrance::ByFirstMessage => tokio::select! {
            retry_after = state.drain_schedule.wait_for_turn(&state.feed) => Err(CloseReason::GoingAway { retry_after }),
            listener = timeout(AUTH_LIMIT, first_message(&mut socket, state)) => {
                listener.unwrap_or(Err(CloseReason::Unauthorized(AuthFailure::NoMessage { limit: AUTH_LIMIT })))
            }
        },
    };
    let limits = StreamLimits {
        pushes_per_minute: state.websocket.rate_limit_events_per_minute,
        buffer_events: state.websocket.event_buffer_size as usize,
    };
    loop {
        let known = match listener {
            Ok(known) => known,
            Err(reason) => return feed::close(socket, &reason).await,
        };
        let (hub, drain_schedule) = (state.feed.clone(), state.drain_schedule.clone());
        let Some((back, token)) =
            feed::serve_socket(socket, hub, known, limits, drain_schedule).await
        else {
            return;
        };
        socket = back;
        listener = timeout(AUTH_LIMIT, admitted(state, &token))
            .await
            .unwrap_or(Err(CloseReason::Unauthorized(AuthFailure::CheckTimedOut)));
    }
}

async fn admitted(state: &AppState, token: &str) -> Result<Listener, CloseReason> {
    authenticate_token(state, token).await.map_err(|problem| {
        if problem.kind() == ProblemKind::RateLimited {
            CloseReason::TooManyRequests
        } else {
            CloseReason::Unauthorized(AuthFailure::Rejected(problem.sentence().to_owned()))
        }
    })
}

/// The first message must be a valid token. Until then nothing is sent but answers to pings.
async fn first_message(socket: &mut Socket, state: &AppState) -> Result<Listener, CloseReason> {
    let mut signs = 0;
    loop {
        let incoming = socket.reader.next().await?;
        signs += 1;
        if signs > SIGNS_BEFORE_AUTH_MAX {
            return Err(CloseReason::TooManyMessages);
        }
        match incoming {
            Incoming::Ping(payload) => {
                if socket.writer.pong(&payload).await.is_err() {
                    return Err(CloseReason::Gone);
                }
            }
            Incoming::Pong => {}
            Incoming::Close(code) => return Err(CloseReason::Left(code)),
            Incoming::Binary => return Err(CloseReason::Unauthorized(AuthFailure::NotAuth)),
            Incoming::Text(text) => {
                let Ok(ClientMessage::Auth { token }) = ClientMessage::parse(&text) else {
                    return Err(CloseReason::Unauthorized(AuthFailure::NotAuth));
                };
                return admitted(state, &token).await;
            }
        }
    }
}
