//! Accepts connections, and drains them in order.
//!
//! Invariant: when draining begins, readiness turns false first, every request that had begun is answered within the limit, and no
//! later request is taken, whatever connection it comes on. No client can delay that: an idle connection is closed at once, a
//! request whose head is half sent gets [`HALF_SENT_GRACE`](super::connection::HALF_SENT_GRACE), a stream ends once
//! `ConnectionDrain::draining` is cancelled, and at the limit the remaining connections are cut. Until the very end new connections
//! are accepted for probes:
//! `/health/ready` returns 503, `/health/live` 200, and any other request is sent to another process.
//!
//! Probes are answered under overload, too: beyond the callers' connections a few more are accepted, and answered as during a
//! drain. An orchestrator that got no answer would kill a process that works.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, serve_connection};
use super::connection_activity::ConnectionSlot;
use super::http_server::{ConnectionClass, HttpServer};
use super::probes_only::ProbesOnly;

/// Pause after `accept` failed because files or memory ran out: the existing connections are served meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Connections besides the feed's: callers of the API keep a few each. Beyond the limit new ones are refused with Retry-After, and
/// idle ones make room after [`HEAD_LIMIT`](super::connection::HEAD_LIMIT).
pub const CALLERS_MAX: usize = 4_096;

/// Connections at a time for probes alone, during a drain and beyond the callers' limit: a load balancer and an orchestrator
/// probe about once a second each.
const PROBES_MAX: usize = 64;

/// Serves until the drain begins, and answers probes until it ends.
pub async fn serve(listener: TcpListener, server: HttpServer) {
    let callers_max = server.streams_max() + CALLERS_MAX;
    serve_callers(listener, server, callers_max).await;
}

/// The same with this many connections for callers.
async fn serve_callers(listener: TcpListener, server: HttpServer, callers_max: usize) {
    let drain = &server.drain;
    let probes = TaskTracker::new();
    let accepting = drain.accepting.token();
    tokio::select! {
        () = accept(&listener, &server, callers_max, ProbesOnly::Overloaded, &probes) => {}
        () = drain.draining.cancelled() => {}
    }
    server.operations.health.start_draining();
    drop(accepting);
    tokio::select! {
        () = accept(&listener, &server, 0, ProbesOnly::Draining, &probes) => {}
        () = drain.closed.cancelled() => {}
    }
    drop(listener);
    probes.close();
    probes.wait().await;
}

/// Accepts connections indefinitely: `callers_max` callers at a time, and beyond them, for the reason `otherwise`, some for probes
/// alone.
async fn accept(
    listener: &TcpListener,
    server: &HttpServer,
    callers_max: usize,
    otherwise: ProbesOnly,
    probes: &TaskTracker,
) {
    let caller_slots = Arc::new(Semaphore::new(callers_max));
    let probe_slots = Arc::new(Semaphore::new(PROBES_MAX));
    loop {
        let (slot, mut class) = tokio::select! {
            biased;
            slot = Arc::clone(&caller_slots).acquire_owned() => (slot, ConnectionClass::Any),
            slot = Arc::clone(&probe_slots).acquire_owned() => (slot, ConnectionClass::Probes(otherwise)),
        };
        // The semaphores are never closed, so while no slot is free this waits.
        let Ok(mut slot) = slot else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A caller may have disconnected while no connection arrived.
                if class != ConnectionClass::Any
                    && let Ok(free) = Arc::clone(&caller_slots).try_acquire_owned()
                {
                    (slot, class) = (free, ConnectionClass::Any);
                }
                let (connections, cut) = match class {
                    ConnectionClass::Any => (&server.drain.connections, &server.drain.cut),
                    ConnectionClass::Probes(_) => (probes, &server.drain.closed),
                };
                let connection = Connection {
                    stream,
                    peer,
                    class,
                    slot: ConnectionSlot::new(slot),
                };
                let served = serve_connection(connection, server.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    // `None`: cut. There is no way left to notify the client.
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::super::connection::HALF_SENT_GRACE;
    use super::super::drain::{ConnectionDrain, DrainReport};
    use super::super::layers::with_middleware;
    use super::*;
    use crate::api::operations::router as operations;
    use crate::api::resources::websocket;
    use crate::api::state::AppState;
    use crate::api::test_support::{NO_DATABASE, test_state};
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
        let state = test_state(NO_DATABASE, 100);
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
        let health = state.operations.health.clone();
        let server = HttpServer {
            router: with_middleware(routes.with_state(state.clone()), &state.cors_origins),
            operations: state.operations.clone(),
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

        /// How long the drain took, and what it reports.
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
    async fn a_half_sent_request_does_not_delay_the_drain() {
        let served = serve_for_test().await;
        let half = served.send("GET /slow HTTP/1.1\r\nhost").await;
        let (took, _) = served.drain(Duration::from_secs(20)).await;
        assert!(took < HALF_SENT_GRACE + Duration::from_secs(2), "{took:?}");
        drop(half);
    }

    #[tokio::test]
    async fn connections_that_are_left_at_the_limit_are_cut() {
        let served = serve_for_test().await;
        let never = served.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let (took, report) = served.drain(Duration::from_secs(1)).await;
        assert!(took >= Duration::from_secs(1), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_eq!(report.connections_cut, 1);
        assert_eq!(rest_of(never).await, "");
    }

    #[tokio::test]
    async fn while_draining_probes_are_answered_and_other_requests_refused() {
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

    /// The answer on a connection that the server closes after it.
    async fn request(served: &Served, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = rest_of(served.send(&request).await);
        let limit = Duration::from_secs(5);
        let answer = tokio::time::timeout(limit, answer).await;
        answer.expect("the connection is closed after the answer")
    }

    #[tokio::test]
    async fn under_overload_probes_are_answered_and_other_requests_refused_with_retry_after() {
        let served = serve_at_most(2).await;
        let idle = served.send("").await;
        let never = served.send("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        for (path, status) in [
            ("/health/live", "200"),
            ("/metrics", "200"),
            ("/slow", "503"),
        ] {
            let answer = request(&served, path).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{path}: {answer}");
            assert_eq!(answer.contains("\r\nretry-after: "), path == "/slow");
        }

        // Silent connections take all those for probes, for a moment.
        let mut silent = Vec::new();
        for _ in 0..2 * PROBES_MAX {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        let answer = request(&served, "/health/live").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        // A connection that ends makes room for the next.
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

        // Connections beyond the limit are not part of the report.
        let (_, report) = served.drain(Duration::from_secs(1)).await;
        assert_eq!(report.connections_cut, 1);
        assert_eq!(rest_of(never).await, "");
    }

    #[tokio::test]
    async fn a_websocket_keeps_its_connection_slot() {
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
