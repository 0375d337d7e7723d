//! Serves one connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::connection_activity::{ConnectionSlot, OpenStreams, RequestsInFlight};
use super::http_server::{ConnectionClass, HttpServer};
use super::probes_only::ProbesOnly;

/// How long a client may take to send a request's head, and how long an idle connection is kept. A client that sends its
/// headers slowly (slowloris) costs one task and one file for that time.
pub(super) const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long a drain keeps a connection that has no request in a handler: enough to write out an answer that is under way, too
/// short for a client that stopped in the middle of a head to delay the shutdown.
pub(super) const HALF_SENT_GRACE: Duration = Duration::from_secs(3);

/// How long a drain waits for the first request of a connection that was just opened: the request is on its way, and a client
/// takes a connection that closes without an answer for a broken one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(300);

/// How long sent bytes may stay unacknowledged: a peer that disappeared, or reads no more, is then disconnected. Together with
/// the pause between two comments of an event stream, within 90 s.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(70);

/// A probe is one short request.
const PROBE_HEAD_LIMIT: Duration = Duration::from_secs(2);

/// While the server is overloaded, other clients take the probes' connections too, and are refused: one that sends nothing must
/// not delay a probe for longer than an orchestrator waits. A probe that had to wait has sent its head before it is accepted.
const OVERLOAD_HEAD_LIMIT: Duration = Duration::from_millis(500);

/// Readiness answers within two seconds, a scrape within one. A client that does not read its answer is disconnected.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// One accepted connection.
pub(super) struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub class: ConnectionClass,
    pub slot: ConnectionSlot,
}

/// The state that the requests of a connection share.
struct Requests {
    server: HttpServer,
    class: ConnectionClass,
    slot: ConnectionSlot,
    in_flight: RequestsInFlight,
    streams: OpenStreams,
    /// Whether one has begun.
    any: AtomicBool,
}

/// Serves the connection until it ends, or until the drain ends it.
pub(super) async fn serve_connection(connection: Connection, server: HttpServer) {
    let Connection {
        stream,
        peer,
        class,
        slot,
    } = connection;
    set_options(&stream, peer);
    let requests = Arc::new(Requests {
        class,
        slot,
        in_flight: RequestsInFlight::new(),
        streams: OpenStreams::new(),
        any: AtomicBool::new(false),
        server,
    });
    let handled = Arc::clone(&requests);
    let service = service_fn(move |request| handled.answer(request));
    let connection = protocol(class)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let draining = &requests.server.drain.draining;
    let ended = match class {
        ConnectionClass::Probes(_) => tokio::time::timeout(PROBE_LIMIT, connection)
            .await
            .unwrap_or(Ok(())),
        ConnectionClass::Any => tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.cancelled() => 'drained: {
                if !requests.any.load(Ordering::SeqCst)
                    && let Ok(ended) =
                        tokio::time::timeout(FIRST_REQUEST_GRACE, connection.as_mut()).await
                {
                    break 'drained ended;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = requests.nothing_left() => Ok(()),
                }
            }
        },
    };
    if let Err(error) = ended {
        // The client disconnected or did not speak HTTP: an operator can do nothing about it.
        tracing::debug!(%error, %peer, "connection ended early");
    }
}

fn set_options(stream: &TcpStream, peer: SocketAddr) {
    // Answers are small and written at once: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
    }
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT)) {
        tracing::debug!(%error, %peer, "TCP_USER_TIMEOUT could not be set");
    }
}

fn protocol(class: ConnectionClass) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new());
    match class {
        ConnectionClass::Any => protocol.header_read_timeout(HEAD_LIMIT),
        ConnectionClass::Probes(ProbesOnly::Draining) => protocol
            .header_read_timeout(PROBE_HEAD_LIMIT)
            .keep_alive(false),
        ConnectionClass::Probes(ProbesOnly::Overloaded) => protocol
            .header_read_timeout(OVERLOAD_HEAD_LIMIT)
            .keep_alive(false),
    };
    protocol
}

impl Requests {
    /// Counted from the call, not from the first poll, so that a drain sees every request whose head was read.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        let in_flight = self.in_flight.begin();
        self.any.store(true, Ordering::SeqCst);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.streams.clone());
        request.extensions_mut().insert(self.slot.clone());
        if let Some(only) = self.probes_only() {
            request.extensions_mut().insert(only);
        }
        let (router, drain) = (self.server.router.clone(), self.server.drain.clone());
        let is_counted = self.class == ConnectionClass::Any;
        async move {
            let answer = router.oneshot(request).await;
            if is_counted {
                drain.count_answer();
            }
            drop(in_flight);
            answer
        }
    }

    /// The reason for which a request that begins now is answered only if it is a probe.
    fn probes_only(&self) -> Option<ProbesOnly> {
        match self.class {
            ConnectionClass::Probes(only) => Some(only),
            ConnectionClass::Any => {
                let is_draining = self.server.operations.health.is_draining();
                is_draining.then_some(ProbesOnly::Draining)
            }
        }
    }

    /// Returns once the drain waits for nothing more on this connection.
    async fn nothing_left(&self) {
        self.in_flight.idle_for(HALF_SENT_GRACE).await;
        self.streams.wait(self.server.streams_end_within()).await;
    }
}
