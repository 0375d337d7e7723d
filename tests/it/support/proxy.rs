//! A JSON-RPC proxy between service and chain that can be told to misbehave.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What happens to one call.
pub enum Verdict {
    Forward,
    /// Forwarded, and the client is told that it took too long.
    ForwardThenTimeOut,
    /// Not forwarded, and never answered.
    Hang,
    /// Not forwarded; this is the result.
    Answer(Value),
    /// Forwarded; the result is changed on its way back.
    Edit(fn(Value) -> Value),
    /// Not forwarded; this JSON-RPC error is the answer.
    Error(i64, &'static str),
    /// Not forwarded; this HTTP status is the answer.
    Status(u16),
}

type Rule = Box<dyn Fn(&str, &Value) -> Verdict + Send>;

/// A proxy of its own for one test; dropped, it stops.
pub struct Proxy {
    pub url: String,
    rule: Arc<Mutex<Rule>>,
    task: JoinHandle<()>,
}

struct Shared {
    target: String,
    http: reqwest::Client,
    rule: Arc<Mutex<Rule>>,
}

impl Proxy {
    /// Forwards everything, until told otherwise.
    pub async fn start(target: &str) -> Proxy {
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_, _| Verdict::Forward)));
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            http: reqwest::Client::new(),
            rule: Arc::clone(&rule),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass_on).with_state(shared);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Proxy { url, rule, task }
    }

    /// From now on `rule` says what happens to each call, by method and parameters.
    pub fn obey(&self, rule: impl Fn(&str, &Value) -> Verdict + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    pub fn forward_everything(&self) {
        self.obey(|_, _| Verdict::Forward);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call: Value = serde_json::from_slice(&body).unwrap();
    let method = call["method"].as_str().unwrap_or_default();
    let verdict = {
        let rule = shared.rule.lock().unwrap_or_else(PoisonError::into_inner);
        rule(method, &call["params"])
    };
    match verdict {
        Verdict::Forward => respond(forward(&shared, body).await),
        Verdict::ForwardThenTimeOut => {
            forward(&shared, body).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        Verdict::Hang => std::future::pending().await,
        Verdict::Answer(result) => {
            respond(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
        }
        Verdict::Edit(edit) => {
            let mut answer = forward(&shared, body).await;
            let result = answer["result"].take();
            answer["result"] = edit(result);
            respond(answer)
        }
        Verdict::Error(code, message) => respond(json!({
            "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message }
        })),
        Verdict::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
    }
}

async fn forward(shared: &Shared, body: Bytes) -> Value {
    let request = shared
        .http
        .post(&shared.target)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    request.send().await.unwrap().json().await.unwrap()
}

fn respond(answer: Value) -> Response {
    axum::Json(answer).into_response()
}
