//! A small collector of traces: receives OTLP over HTTP, as protobuf, and keeps what it receives.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::wait::eventually;

/// A span as it was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    pub trace: String,
    pub id: String,
    /// Empty when it has none.
    pub parent: String,
    pub name: String,
    pub resource: Vec<KeyValue>,
    pub span: Span,
}

impl Exported {
    fn new(span: Span, resource: &[KeyValue]) -> Exported {
        Exported {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name.clone(),
            resource: resource.to_vec(),
            span,
        }
    }

    /// Of the span; empty when there is no such attribute.
    pub fn attribute(&self, key: &str) -> String {
        text_of(&self.span.attributes, key)
    }

    /// The process that exported it.
    pub fn instance(&self) -> String {
        text_of(&self.resource, "service.instance.id")
    }

    /// Trace and span that it is linked to.
    pub fn links(&self) -> Vec<(String, String)> {
        let links = self.span.links.iter();
        links
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => text,
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Clone, Default)]
struct Kept {
    spans: Arc<Mutex<Vec<Exported>>>,
    authorizations: Arc<Mutex<Vec<String>>>,
}

/// Stops when it is dropped.
pub struct Collector {
    /// Without a path.
    pub address: String,
    kept: Kept,
    _stop: DropGuard,
}

impl Collector {
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let kept = Kept::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(kept.clone());
        let stop = CancellationToken::new();
        let served = async move { axum::serve(listener, routes).await };
        tokio::spawn(stop.clone().run_until_cancelled_owned(served));
        Collector {
            address,
            kept,
            _stop: stop.drop_guard(),
        }
    }

    pub fn spans(&self) -> Vec<Exported> {
        let spans = self.kept.spans.lock();
        spans.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the exporters authorized themselves with.
    pub fn authorizations(&self) -> Vec<String> {
        let authorizations = self.kept.authorizations.lock();
        authorizations
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for a span of this name that has this attribute.
    pub async fn until(&self, name: &str, key: &str, value: &str) -> Exported {
        eventually(&format!("{name} of {value} is exported"), async || {
            self.spans()
                .into_iter()
                .find(|span| span.name == name && span.attribute(key) == value)
        })
        .await
    }
}

async fn take(State(kept): State<Kept>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let is_protobuf = headers["content-type"] == "application/x-protobuf";
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    if !is_protobuf {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let authorization = headers.get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    kept.authorizations
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(authorization);
    let mut spans = kept.spans.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        for of_scope in of_resource.scope_spans {
            let exported = of_scope.spans.into_iter();
            spans.extend(exported.map(|span| Exported::new(span, &resource)));
        }
    }
    StatusCode::OK
}
