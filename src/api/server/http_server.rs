//! Accepts connections, and lets go of them in order.
//!
//! Invariant: when draining begins, readiness turns false first, every request that had begun is answered within the
//! limit, and none that comes later is taken, whatever connection it comes on. Nobody can hold that up: an idle connection
//! is closed at once, a request whose head is half sent gets [`HALF_SENT_GRACE`], a stream ends by the same token, and at
//! the limit what is left is cut. Until the very end new connections are accepted for probes: `/health/ready` says 503,
//! `/health/live` 200, and whoever wants anything else is sent to another process.
//!
//! Probes are heard in a crowd, too: past the callers' places a few more connections are accepted, and answered as at the
//! drain. An orchestrator that got no answer would kill a process that works.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::auth::rate_limit::FORGET_INTERVAL;
use crate::api::operations::state::Operations;
use crate::api::server::drain::ConnectionDrain;
use crate::api::server::middleware::ProbesOnly;
use crate::api::state::AppState;

/// How long a client may take to send a request's head, and an idle connection is kept. A slow reader of headers
/// (slowloris) costs one task and one file for that time.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// How long a connection is kept at the drain that has no request in a handler: enough to write out an answer that is
/// under way, too short for a client that stopped in the middle of a head to hold up the end.
const HALF_SENT_GRACE: Duration = Duration::from_secs(3);

/// How long a connection that was just opened is waited for at the drain: its first request is on its way, and a client would
/// take a connection that closes without an answer for a broken one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(300);

/// How long bytes may wait to be taken by the other end: one that is gone without a word, or reads no more, is let go of. With
/// the pause between two comments of a stream of events, within 90 s.
const UNHEARD_LIMIT: Duration = Duration::from_secs(70);

/// Pause after `accept` failed for lack of files or memory: the connections that exist are served on meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Connections beside the feed's: callers of the API keep a few each. Past the limit new ones are told to come back, and idle
/// ones make room after [`HEAD_LIMIT`].
pub const CALLERS_MAX: usize = 4_096;

/// Connections at a time for probes alone, at the drain and past the callers' limit: a load balancer and an orchestrator look
/// once in a second or so each.
const PROBES_MAX: usize = 64;

/// A probe is one short request.
const PROBE_HEAD_LIMIT: Duration = Duration::from_secs(2);

/// In a crowd others take these places, too, and are told to go away: who says nothing must not keep a probe waiting for longer
/// than an orchestrator has patience. A probe that was waited for has sent its head before it is accepted.
const OVERLOAD_HEAD_LIMIT: Duration = Duration::from_millis(500);

/// Readiness answers within two seconds, a scrape within one. Who reads no answer gives its place back.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How often samples of histograms are moved into their buckets.
const DRAIN_SAMPLES_INTERVAL: Duration = Duration::from_secs(5);

/// What is behind the door.
#[derive(Clone)]
pub struct HttpServer {
    pub router: Router,
    pub operations: Operations,
    /// `None` in a process that serves no API.
    pub api: Option<AppState>,
    pub drain: ConnectionDrain,
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionClass {
    Any,
    Probes(ProbesOnly),
}

/// Serves until the drain begins, and answers probes until it ends.
pub async fn serve(listener: TcpListener, server: HttpServer) {
    let streams = server
        .api
        .as_ref()
        .map_or(0, |api| api.websocket.max_connections as usize);
    serve_callers(listener, server, streams + CALLERS_MAX).await;
}

/// The same with this many places for callers.
async fn serve_callers(listener: TcpListener, server: HttpServer, callers_max: usize) {
    let drain = &server.drain;
    let probes = TaskTracker::new();
    let accepting = drain.accepting.token();
    tokio::select! {
        () = accept(&listener, &server, callers_max, ProbesOnly::Overloaded, &probes) => {}
        () = maintain(&server) => {}
        () = drain.draining.cancelled() => {}
    }
    server.operations.health.start_draining();
    drop(accepting);
    tokio::select! {
        () = accept(&listener, &server, 0, ProbesOnly::Draining, &probes) => {}
        () = maintain(&server) => {}
        () = drain.closed.cancelled() => {}
    }
    drop(listener);
    probes.close();
    probes.wait().await;
}

/// Accepts for ever: `callers_max` callers at a time, and past them, because of `otherwise`, some for probes alone.
async fn accept(
    listener: &TcpListener,
    server: &HttpServer,
    callers_max: usize,
    otherwise: ProbesOnly,
    probes: &TaskTracker,
) {
    let caller_places = Arc::new(Semaphore::new(callers_max));
    let probe_places = Arc::new(Semaphore::new(PROBES_MAX));
    loop {
        let (place, mut class) = tokio::select! {
            biased;
            place = Arc::clone(&caller_places).acquire_owned() => (place, ConnectionClass::Any),
            place = Arc::clone(&probe_places).acquire_owned() => (place, ConnectionClass::Probes(otherwise)),
        };
        // The semaphores are never closed, so without a place this waits.
        let Ok(mut place) = place else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A caller may have left while nobody came.
                if class != ConnectionClass::Any
                    && let Ok(free) = Arc::clone(&caller_places).try_acquire_owned()
                {
                    (place, class) = (free, ConnectionClass::Any);
                }
                let (connections, cut) = match class {
                    ConnectionClass::Any => (&server.drain.connections, &server.drain.cut),
                    ConnectionClass::Probes(_) => (probes, &server.drain.closed),
                };
                let place = Place(Arc::new(place));
                let served = serve_connection(stream, peer, server.clone(), class, place);
                let cut = cut.clone();
                connections.spawn(async move {
                    // `None`: cut off. Nothing is left to be told to the client.
                    let _ = cut.run_until_cancelled(served).await;
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; is the open-file limit reached?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    server: HttpServer,
    class: ConnectionClass,
    place: Place,
) {
    // Answers are small and written at once: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
    }
    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(UNHEARD_LIMIT)) {
        tracing::debug!(%error, %peer, "TCP_USER_TIMEOUT could not be set");
    }
    let (router, drain) = (&server.router, &server.drain);
    let in_handlers = Arc::new(AtomicUsize::new(0));
    let streaming = Streaming::default();
    let farewells_within = server
        .api
        .as_ref()
        .map_or(Duration::ZERO, |api| api.drain_schedule.spread_max());
    let requests_begun = AtomicUsize::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let in_handler = InHandler::enter(&in_handlers);
        requests_begun.fetch_add(1, Ordering::SeqCst);
        let (router, drain) = (router.clone(), drain.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(streaming.clone());
        request.extensions_mut().insert(place.clone());
        let only = match class {
            ConnectionClass::Probes(only) => Some(only),
            ConnectionClass::Any => {
                let is_draining = server.operations.health.is_draining();
                is_draining.then_some(ProbesOnly::Draining)
            }
        };
        if let Some(only) = only {
            request.extensions_mut().insert(only);
        }
        async move {
            let answer = router.oneshot(request).await;
            if class == ConnectionClass::Any {
                drain.answered_one();
            }
            drop(in_handler);
            answer
        }
    });
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
    let connection = protocol
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = match class {
        ConnectionClass::Probes(_) => tokio::time::timeout(PROBE_LIMIT, connection)
            .await
            .unwrap_or(Ok(())),
        ConnectionClass::Any => tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain.draining.cancelled() => 'left: {
                let is_fresh = requests_begun.load(Ordering::SeqCst) == 0;
                if is_fresh
                    && let Ok(ended) =
                        tokio::time::timeout(FIRST_REQUEST_GRACE, connection.as_mut()).await
                {
                    break 'left ended;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = nothing_left(&in_handlers, &streaming, farewells_within) => Ok(()),
                }
            }
        },
    };
    if let Err(error) = ended {
        // A client that went away or spoke no HTTP: nothing for an operator to act upon.
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}

/// A connection's place at the door, free for another once every clone is dropped. A WebSocket keeps it: its connection outlives
/// the request that asked for it, and is an open file still.
#[derive(Clone, Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// The connection of a request, for a stream that goes on after its handler has returned.
#[derive(Clone, Debug, Default)]
pub struct Streaming(Arc<AtomicUsize>);

impl Streaming {
    /// At the drain the connection is left open for its stream's farewell while this is held, as long as farewells take.
    pub fn hold(&self) -> InHandler {
        InHandler::enter(&self.0)
    }
}

/// Counts a request while a handler has it.
pub struct InHandler(Arc<AtomicUsize>);

impl InHandler {
    fn enter(count: &Arc<AtomicUsize>) -> InHandler {
        count.fetch_add(1, Ordering::SeqCst);
        InHandler(Arc::clone(count))
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns once nothing goes on that the drain waits for. A client that reads nothing any more does not get to its farewell,
/// and is not waited for longer than for the others.
async fn nothing_left(
    in_handlers: &AtomicUsize,
    streaming: &Streaming,
    farewells_within: Duration,
) {
    nothing_in_handlers(in_handlers).await;
    let streams_ended = async {
        while streaming.0.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let _ = tokio::time::timeout(farewells_within, streams_ended).await;
}

const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Returns once no handler has had a request of this connection for [`HALF_SENT_GRACE`].
async fn nothing_in_handlers(in_handlers: &AtomicUsize) {
    let mut idle = Duration::ZERO;
    while idle < HALF_SENT_GRACE {
        tokio::time::sleep(LOOK_INTERVAL).await;
        idle = match in_handlers.load(Ordering::SeqCst) {
            0 => idle + LOOK_INTERVAL,
            _ => Duration::ZERO,
        };
    }
}

/// Small regular chores of the door, for ever.
async fn maintain(server: &HttpServer) {
    let mut drain_samples = tokio::time::interval(DRAIN_SAMPLES_INTERVAL);
    let mut forget = tokio::time::interval(FORGET_INTERVAL);
    loop {
        tokio::select! {
            _ = drain_samples.tick() => server.operations.metrics.drain_samples(),
            _ = forget.tick() => if let Some(api) = &server.api {
                api.rate_limiter.forget_idle();
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::api::operations::state as operations;
    use crate::api::resources::websocket;
    use crate::api::router::with_middleware;
    use crate::api::server::drain::DrainReport;
    use crate::api::state::test_state;
    use crate::telemetry::Health;

    struct Served {
        drain: ConnectionDrain,
        health: Health,
        address: SocketAddr,
        server: JoinHandle<()>,
    }

    /// `/slow` answers after 700 ms, `/never` not at all.
    async fn serve_for_test() -> Served {
        serve_at_most(100).await
    }

    async fn serve_at_most(callers_max: usize) -> Served {
        let state = test_state("postgres://nobody@127.0.0.1:9/none", 100);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route(
                "/slow",
                get(|| async {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    "done"
                }),
            )
            .route("/never", get(std::future::pending::<StatusCode>))
            .merge(Router::from(operations::routes::<AppState>()))
            .merge(Router::from(websocket::routes()));
        let drain = ConnectionDrain::new();
        let health = state.health.clone();
        let server = HttpServer {
            router: with_middleware(routes, state.clone()),
            operations: state.operations().clone(),
            api: Some(state),
            drain: drain.clone(),
        };
        Served {
            drain,
            health,
            address,
            server: tokio::spawn(serve_callers(listener, server, callers_max)),
        }
    }

    impl Served {
        /// Sends this much of a request, and gives the server time to have read it.
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream
        }

        /// How long letting the callers go took, and what became of them.
        async fn drain(self, limit: Duration) -> (Duration, DrainReport) {
            let started = Instant::now();
            let report = self.drain.drain(limit).await;
            let took = started.elapsed();
            assert!(self.health.is_draining());
            self.drain.close();
            self.server.await.unwrap();
            assert!(TcpStream::connect(self.address).await.is_err());
            (took, report)
        }
    }

    async fn rest_of(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_that_had_begun_is_answered_and_idle_connections_end_at_once() {
        let served = serve_for_test().await;
        let idle = served.send("").await;
        let slow = served.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let (took, report) = served.drain(Duration::from_secs(10)).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        let answer = rest_of(slow).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("done"), "{answer}");
        assert_eq!(rest_of(idle).await, "");
        let expected = DrainReport {
            requests_answered: 1,
            connections_closed: 2,
            connections_cut: 0,
        };
        assert_eq!(report, expected);
    }

    #[tokio::test]
    async fn a_half_sent_request_holds_nothing_up() {
        let served = serve_for_test().await;
        let half = served.send("GET /slow HTTP/1.1\r\nhost").await;
        let (took, _) = served.drain(Duration::from_secs(20)).await;
        assert!(took < HALF_SENT_GRACE + Duration::from_secs(2), "{took:?}");
        drop(half);
    }

    #[tokio::test]
    async fn at_the_limit_what_is_left_is_cut() {
        let served = serve_for_test().await;
        let never = served.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let (took, report) = served.drain(Duration::from_secs(1)).await;
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(report.connections_cut, 1);
        assert_eq!(rest_of(never).await, "");
    }

    #[tokio::test]
    async fn while_draining_probes_are_answered_and_others_sent_away() {
        let served = serve_for_test().await;
        let slow = served.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        served.drain.draining.cancel();
        for (path, status) in [
            ("/health/ready", "503"),
            ("/health/live", "200"),
            ("/metrics", "200"),
            ("/slow", "503"),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            let answer = rest_of(served.send(&request).await).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{path}: {answer}");
            assert_eq!(answer.contains("\r\nretry-after: "), path == "/slow");
        }
        assert!(rest_of(slow).await.ends_with("done"));
        served.drain(Duration::from_secs(1)).await;
    }
    /// The answer on a connection that the server closes behind it.
    async fn ask(served: &Served, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = rest_of(served.send(&request).await);
        let limit = Duration::from_secs(5);
        let answer = tokio::time::timeout(limit, answer).await;
        answer.expect("the connection is closed behind the answer")
    }

    #[tokio::test]
    async fn in_a_crowd_probes_are_answered_and_others_told_to_come_back() {
        let served = serve_at_most(2).await;
        let idle = served.send("").await;
        let never = served.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        for (path, status) in [
            ("/health/live", "200"),
            ("/metrics", "200"),
            ("/slow", "503"),
        ] {
            let answer = ask(&served, path).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{path}: {answer}");
            assert_eq!(answer.contains("\r\nretry-after: "), path == "/slow");
        }

        // Those who say nothing take all places for probes, for a moment.
        let mut silent = Vec::new();
        for _ in 0..2 * PROBES_MAX {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        let answer = ask(&served, "/health/live").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        // Whoever leaves makes room for the next.
        drop(idle);
        let mut slow = String::new();
        for _ in 0..50 {
            let request = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            slow = rest_of(served.send(request).await).await;
            if slow.starts_with("HTTP/1.1 200") {
                break;
            }
        }
        assert!(slow.ends_with("done"), "{slow}");

        // Nobody of the crowd counts among those who are let go.
        let (_, report) = served.drain(Duration::from_secs(1)).await;
        assert_eq!(report.connections_cut, 1);
        assert_eq!(rest_of(never).await, "");
    }

    #[tokio::test]
    async fn a_websocket_keeps_its_place_at_the_door() {
        let served = serve_at_most(1).await;
        let mut socket = served
            .send(
                "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await;
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        let slow = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let refused = rest_of(served.send(slow).await).await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        drop(socket);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answered = rest_of(served.send(slow).await).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        served.drain(Duration::from_secs(1)).await;
    }
}
