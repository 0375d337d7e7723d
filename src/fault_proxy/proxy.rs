//! Receives calls, carries out the action for each, and counts them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::alpenglow::{self, Played};
use super::call_action::CallAction;
use super::faulty_answers::{self, carries_v1};
use super::rules::{CallCounts, RuleBook, RuleError};
use super::upstream::Upstream;

/// Rules over HTTP: PUT a document, GET it with the counts. Every other path is JSON-RPC.
const CONTROL: &str = "/control";
/// Pause when no connection can be accepted because the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Closure = Box<dyn Fn(&str, &Value) -> CallAction + Send>;

/// A proxy that serves until it is dropped.
pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

struct Shared {
    upstream: Upstream,
    book: Mutex<RuleBook>,
    /// Decides when no rule of the book matches.
    closure: Mutex<Closure>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, RuleBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn action(&self, method: &str, parameters: &Value) -> CallAction {
        if let Some(action) = self.book().decide(method, Instant::now()) {
            return action;
        }
        let closure = self.closure.lock().unwrap_or_else(PoisonError::into_inner);
        closure(method, parameters)
    }
}

impl FaultProxy {
    /// Serves in front of `target`, a URL; forwards everything at first.
    pub async fn start(listen: SocketAddr, target: &str) -> io::Result<FaultProxy> {
        let listener = TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared {
            upstream: Upstream::new(target),
            book: Mutex::default(),
            closure: Mutex::new(Box::new(|_, _| CallAction::Forward)),
        });
        let stop = CancellationToken::new();
        let address = listener.local_addr()?;
        let accepting = accept(listener, Arc::clone(&shared), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(FaultProxy {
            address,
            shared,
            stop,
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `closure` decides each call that no rule decides, by method and parameters.
    pub fn on_call(&self, closure: impl Fn(&str, &Value) -> CallAction + Send + 'static) {
        let mut current = self
            .shared
            .closure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Box::new(closure);
    }

    /// Replaces the rules.
    pub fn put_rules(&self, document: &Value) -> Result<(), RuleError> {
        let document = document.to_string();
        self.shared.book().put(document.as_bytes(), Instant::now())
    }

    /// Calls so far, of one method or of all (`*`).
    pub fn calls(&self, method: &str) -> CallCounts {
        self.shared.book().calls(method)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = serve_connection(stream, Arc::clone(&shared));
                tokio::spawn(stop.clone().run_until_cancelled_owned(served));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Ends the connection without an answer.
#[derive(Debug, Error)]
#[error("the rules drop this connection")]
struct Dropped;

type Answer = Response<Full<Bytes>>;

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { handle(&shared, request).await }
    });
    // An error means that the client disconnected, or that the rules drop the connection.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Dropped> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Err(Dropped);
    };
    let body = body.to_bytes();
    match (head.uri.path() == CONTROL, head.method) {
        (false, _) => call(shared, &body).await,
        (true, Method::GET) => Ok(respond(&shared.book().shown(Instant::now()))),
        (true, Method::PUT) => Ok(match shared.book().put(&body, Instant::now()) {
            Ok(()) => status(StatusCode::NO_CONTENT),
            Err(error) => {
                let mut answer = respond(&json!({ "error": error.to_string() }));
                *answer.status_mut() = StatusCode::BAD_REQUEST;
                answer
            }
        }),
        (true, _) => Ok(status(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

async fn call(shared: &Shared, body: &[u8]) -> Result<Answer, Dropped> {
    let Ok(call) = serde_json::from_slice::<Value>(body) else {
        return Ok(status(StatusCode::BAD_REQUEST));
    };
    let method = call["method"].as_str().unwrap_or_default();
    shared.book().count_received(method);
    let upstream = &shared.upstream;
    let answer = match shared.action(method, &call["params"]) {
        CallAction::Forward => forward(shared, method, &call).await,
        CallAction::Delay(delay) => {
            tokio::time::sleep(delay).await;
            forward(shared, method, &call).await
        }
        CallAction::ForwardThenTimeOut => {
            forward(shared, method, &call).await;
            return Ok(status(StatusCode::GATEWAY_TIMEOUT));
        }
        CallAction::Hang => std::future::pending().await,
        CallAction::Drop => return Err(Dropped),
        CallAction::Answer(result) => {
            Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
        }
        CallAction::Edit(edit) => forward(shared, method, &call).await.map(|mut answer| {
            let result = answer["result"].take();
            answer["result"] = edit(result);
            answer
        }),
        CallAction::Error(code, message) => Some(faulty_answers::error_of(&call, code, message)),
        CallAction::ErrorObject(error) => {
            Some(json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }))
        }
        CallAction::Status(code) => return Ok(status(status_of(code))),
        CallAction::RetryAfter { status: code, secs } => {
            let mut answer = status(status_of(code));
            answer.headers_mut().insert(RETRY_AFTER, secs.into());
            return Ok(answer);
        }
        CallAction::Alpenglow(confirmed) => match alpenglow::request(&call, confirmed) {
            Played::Answer(answer) => Some(answer),
            Played::Forward(call) => forward(shared, method, &call)
                .await
                .map(|answer| alpenglow::answer(method, answer)),
        },
        CallAction::Lag { slots } => faulty_answers::lagging(upstream, &call, slots).await,
        CallAction::WithoutHistory => faulty_answers::without_history(upstream, &call).await,
        CallAction::Prune { before_slot } => {
            faulty_answers::pruned(upstream, &call, before_slot).await
        }
        CallAction::ReportNotFound if method == "getSignatureStatuses" => {
            faulty_answers::not_found(upstream, &call).await
        }
        CallAction::ReportConfirmed if method == "getSignatureStatuses" => {
            faulty_answers::confirmed(upstream, &call).await
        }
        CallAction::RefuseV1 if carries_v1(&call) => Some(faulty_answers::unknown_format(&call)),
        CallAction::ReportNotFound | CallAction::ReportConfirmed | CallAction::RefuseV1 => {
            forward(shared, method, &call).await
        }
    };
    Ok(answer.map_or_else(
        || status(StatusCode::BAD_GATEWAY),
        |answer| respond(&answer),
    ))
}

async fn forward(shared: &Shared, method: &str, call: &Value) -> Option<Value> {
    shared.book().count_forwarded(method);
    shared.upstream.forward(call).await
}

fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn respond(document: &Value) -> Answer {
    let mut answer = Response::new(Full::from(document.to_string()));
    let json = hyper::header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
