//! Open spans.

use std::fmt::Display;
use std::time::SystemTime;

use axum::http::{HeaderMap, Method, StatusCode};
use futures_util::future::Either;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use uuid::Uuid;

use super::attributes::{
    ENDPOINT, HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, OUTCOME, READING_ID, READINGS, RPC_METHOD,
    RPC_SYSTEM, SIGNATURE, TRANSACTION_NUMBER,
};
use super::installed::tracer;
use super::trace_context::{TraceContext, caller};

/// An open span, or nothing while no traces are exported. It ends when its last clone and the last future that it surrounds
/// are dropped.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    pub fn none() -> Span {
        Span(None)
    }

    /// The handling of a request. `route` is the template, never the path.
    pub fn of_request(method: &Method, route: Option<&str>, headers: &HeaderMap) -> Span {
        let Some(tracer) = tracer() else {
            return Span::none();
        };
        let method = known(method);
        let mut attributes = vec![KeyValue::new(HTTP_METHOD, method)];
        let name = match route {
            Some(route) => {
                attributes.push(KeyValue::new(HTTP_ROUTE, route.to_owned()));
                format!("{method} {route}")
            }
            None => method.to_owned(),
        };
        let parent = caller(headers).map_or_else(Context::new, |caller| {
            Context::new().with_remote_span_context(caller)
        });
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        Span::begin(tracer, builder, &parent)
    }

    /// The submission of a reading, under the current span. Later steps of the reading continue from this span.
    pub fn of_submission() -> Span {
        let Some(tracer) = tracer() else {
            return Span::none();
        };
        let builder = SpanBuilder::from_name("submit reading").with_kind(SpanKind::Producer);
        Span::begin(tracer, builder, &Context::current())
    }

    /// The packing and sending of a batch: a separate trace, since it serves many readings.
    pub fn of_batch(readings: usize) -> Span {
        let Some(tracer) = tracer() else {
            return Span::none();
        };
        let builder = SpanBuilder::from_name("mint batch")
            .with_attributes([KeyValue::new(READINGS, attribute_value(readings))]);
        Span::begin(tracer, builder, &Context::new())
    }

    /// One call of an RPC endpoint, if the caller is traced.
    pub fn of_call(method: &'static str, endpoint: &str) -> Span {
        let Some(tracer) = tracer() else {
            return Span::none();
        };
        let caller = Context::current();
        if !caller.span().span_context().is_sampled() {
            return Span::none();
        }
        let builder = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new(RPC_SYSTEM, "jsonrpc"),
                KeyValue::new(RPC_METHOD, method),
                KeyValue::new(ENDPOINT, endpoint.to_owned()),
            ]);
        Span::begin(tracer, builder, &caller)
    }

    fn begin(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Span {
        let span = tracer.build_with_context(builder, parent);
        Span(Some(parent.with_span(span)))
    }

    /// The context for spans under this one. `None` when it is not sampled: a trace must not start without its beginning.
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::of(self.0.as_ref()?.span().span_context())
    }

    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed.
    pub fn fail(&self, outcome: &'static str) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(outcome));
        }
    }

    /// Records the status of the answer. Only a server error marks the span as failed.
    pub fn answered(&self, status: StatusCode) {
        self.set(HTTP_STATUS, i64::from(status.as_u16()));
        if status.is_server_error() {
            self.fail("");
        }
    }

    /// Runs the future with this span as the current one.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(future.with_context(context.clone())),
            None => Either::Right(future),
        }
    }
}

/// A client may send any word as the method, and attributes never contain a client's words.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

/// The way in which the first send of a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The endpoint answered with an error, or could not be reached.
    Rejected,
    /// No answer came in time.
    TimedOut,
}

impl SendFailure {
    /// Value of the attribute `outcome`.
    fn as_str(self) -> &'static str {
        match self {
            SendFailure::Rejected => "rejected",
            SendFailure::TimedOut => "timed out",
        }
    }
}

/// A mint transaction until it is sent: one span in its batch's trace, with links to the readings that it pays, and one in
/// the trace of each of those readings.
#[derive(Debug)]
pub struct TransactionSpan {
    span: Span,
    begun: SystemTime,
    number: u64,
    signature: String,
    readings: Vec<(Uuid, TraceContext)>,
}

impl TransactionSpan {
    /// Begins a span if at least one of the readings is traced.
    pub fn begin(number: u64, readings: Vec<(Uuid, TraceContext)>) -> TransactionSpan {
        let span = match tracer() {
            Some(tracer) if !readings.is_empty() => {
                let links = readings
                    .iter()
                    .map(|(_, reading)| Link::with_context(reading.span_context().clone()))
                    .collect();
                let builder = SpanBuilder::from_name("mint transaction")
                    .with_attributes([KeyValue::new(TRANSACTION_NUMBER, attribute_value(number))])
                    .with_links(links);
                Span::begin(tracer, builder, &Context::current())
            }
            _ => Span::none(),
        };
        TransactionSpan {
            span,
            begun: SystemTime::now(),
            number,
            signature: String::new(),
            readings,
        }
    }

    pub fn signed(&mut self, signature: &impl Display) {
        if self.span.0.is_some() {
            self.signature = signature.to_string();
            self.span.set(SIGNATURE, self.signature.clone());
        }
    }

    pub fn not_recorded(&self) {
        self.span.fail("not recorded");
    }

    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        self.span.around(future)
    }

    /// Records the first send. After a failure the same bytes will be sent again.
    pub fn sent(self, outcome: Result<(), SendFailure>) {
        let word = outcome.err().map_or("sent", SendFailure::as_str);
        self.span.set(OUTCOME, word);
        if outcome.is_err() {
            self.span.fail(word);
        }
        let Some(transaction) = self.span.context() else {
            return;
        };
        for (reading, context) in &self.readings {
            let builder = SpanBuilder::from_name("send transaction")
                .with_start_time(self.begun)
                .with_attributes([
                    KeyValue::new(READING_ID, reading.to_string()),
                    KeyValue::new(TRANSACTION_NUMBER, attribute_value(self.number)),
                    KeyValue::new(SIGNATURE, self.signature.clone()),
                    KeyValue::new(OUTCOME, word),
                ])
                .with_links(vec![Link::with_context(transaction.span_context().clone())]);
            export_ended(builder, context, SystemTime::now());
        }
    }
}

/// Attributes are signed 64-bit integers; larger counts do not occur.
fn attribute_value(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Exports a span that has ended, in the trace of a reading.
pub(super) fn export_ended(builder: SpanBuilder, reading: &TraceContext, end: SystemTime) {
    if let Some(tracer) = tracer() {
        let mut span = tracer.build_with_context(builder, &reading.as_parent());
        span.end_with_timestamp(end);
    }
}
