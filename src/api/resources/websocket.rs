//! `GET /ws`: opens a stream of the feed over a WebSocket. The feed defines what is sent on it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, Uri, header};
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::auth::stream_auth::{StreamAuth, StreamRefused};
use crate::api::auth::stream_credential::{PROTOCOL, protocols};
use crate::api::live_feed::LiveFeed;
use crate::api::problem::{Problem, ProblemDocument};
use crate::api::problem_kind::ProblemKind;
use crate::api::server::connection_activity::ConnectionSlot;
use crate::api::state::AppState;
use crate::feed::{
    AuthFailure, ClientMessage, CloseReason, Listener, StreamKind, StreamLimits, Viewer,
};
use crate::websocket::{Compression, HandshakeError, Incoming, Socket, Upgrade};

pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(handler))
}

/// For the first message of a client without a credential, and the check of its token.
const AUTH_LIMIT: Duration = Duration::from_secs(5);

/// Messages, pings and pongs of a client that has not authenticated yet.
const MESSAGES_BEFORE_AUTH_MAX: u32 = 10;

/// The authentication of the client: done, or expected.
enum Authentication {
    Done(Listener),
    ByFirstMessage,
}

/// Live events over a WebSocket.
///
/// A token comes in the header `Authorization`. Pages, which cannot set it, put a ticket of `POST /api/ws/ticket` into
/// `?ticket=`, or name the protocols `gridtokenx` and `bearer.TOKEN`, or send the first message
/// `{"type":"auth","token":"…"}` within 5 s. A token in the URL is never accepted. `docs/feed.md` describes the messages.
#[utoipa::path(
    get,
    path = "/ws",
    tag = "feed",
    security(("bearer" = []), ()),
    params(
        ("ticket" = Option<String>, Query, description = "Single-use ticket of POST /api/ws/ticket"),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`gridtokenx`, and from pages also `bearer.TOKEN`; the answer names only `gridtokenx`"),
        ("Sec-WebSocket-Extensions" = Option<String>, Header, description = "`permessage-deflate` is accepted unless the operator has disabled it"),
    ),
    responses(
        (status = 101, description = "The stream is open"),
        (status = 401, description = "The token or ticket is not valid", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 403, description = "Pages of this origin may not open a stream", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 426, description = "The request is not a WebSocket handshake", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests of this subject", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
async fn handler(
    State(auth): State<StreamAuth>,
    State(feed): State<LiveFeed>,
    uri: Uri,
    headers: HeaderMap,
    slot: Option<Extension<ConnectionSlot>>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Problem> {
    let authentication = match auth.authenticate(&uri, &headers).await? {
        Some(listener) => Authentication::Done(listener),
        None if feed.limits.auth_required => Authentication::ByFirstMessage,
        None => Authentication::Done(Listener {
            viewer: Viewer::Anonymous,
            expires_at: None,
        }),
    };
    let permit = feed.take_permit(StreamKind::WebSocket)?;
    let protocol = protocols(&headers)
        .any(|name| name == PROTOCOL)
        .then(|| HeaderValue::from_static(PROTOCOL));
    let compression = if feed.limits.compression_enabled {
        Compression::Deflate
    } else {
        Compression::None
    };
    let (answer, pending) = upgrade.accept(compression, protocol);
    // Counted from here on, so that the drain waits for it. The task owns the permit, which is freed however the task ends.
    let tasks = feed.connections.clone();
    tasks.spawn(async move {
        let _held = (permit, slot);
        match pending.open().await {
            Ok(socket) => serve(socket, &auth, &feed, authentication).await,
            Err(error) => tracing::debug!(%error, "client disconnected before its stream was open"),
        }
    });
    Ok(answer)
}

impl FromRequestParts<AppState> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Upgrade, Problem> {
        Upgrade::from_request(parts).map_err(|error| match error {
            // RFC 6455, section 4.4: the answer names the supported version.
            HandshakeError::NotAnUpgrade => {
                Problem::new(ProblemKind::UpgradeRequired, error.to_string())
                    .header(header::UPGRADE, HeaderValue::from_static("websocket"))
                    .header(
                        header::SEC_WEBSOCKET_VERSION,
                        HeaderValue::from_static("13"),
                    )
            }
            HandshakeError::InvalidKey => {
                Problem::new(ProblemKind::MalformedRequest, error.to_string())
            }
        })
    }
}

/// Serves the stream until it ends; a client may send a new token before its old one expires.
async fn serve(
    mut socket: Socket,
    auth: &StreamAuth,
    feed: &LiveFeed,
    authentication: Authentication,
) {
    let mut listener = match authentication {
        Authentication::Done(listener) => Ok(listener),
        Authentication::ByFirstMessage => tokio::select! {
            retry_after = feed.drain_schedule.wait_for_turn(&feed.hub) => Err(CloseReason::GoingAway { retry_after }),
            listener = timeout(AUTH_LIMIT, first_message(&mut socket, auth)) => {
                listener.unwrap_or(Err(CloseReason::Unauthorized(AuthFailure::NoMessage { limit: AUTH_LIMIT })))
            }
        },
    };
    let limits = StreamLimits {
        pushes_per_minute: feed.limits.rate_limit_events_per_minute,
        buffer_events: feed.buffer_events(),
    };
    loop {
        let known = match listener {
            Ok(known) => known,
            Err(reason) => return crate::feed::close(socket, &reason).await,
        };
        let (hub, drain_schedule) = (feed.hub.clone(), feed.drain_schedule.clone());
        let Some((returned, token)) =
            crate::feed::serve_socket(socket, hub, known, limits, drain_schedule).await
        else {
            return;
        };
        socket = returned;
        listener = timeout(AUTH_LIMIT, authenticate(auth, &token))
            .await
            .unwrap_or(Err(CloseReason::Unauthorized(AuthFailure::CheckTimedOut)));
    }
}

async fn authenticate(auth: &StreamAuth, token: &str) -> Result<Listener, CloseReason> {
    let listener = auth.authenticate_token(token).await;
    listener.map_err(|refused| match refused {
        StreamRefused::Token(error) => CloseReason::Unauthorized(AuthFailure::TokenRefused(error)),
        StreamRefused::RateLimited(_) => CloseReason::TooManyRequests,
    })
}

/// The first message must be a valid token. Until then nothing is sent but answers to pings.
async fn first_message(socket: &mut Socket, auth: &StreamAuth) -> Result<Listener, CloseReason> {
    let mut messages = 0;
    loop {
        let incoming = socket.reader.next().await?;
        messages += 1;
        if messages > MESSAGES_BEFORE_AUTH_MAX {
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
                return authenticate(auth, &token).await;
            }
        }
    }
}
