//! Identifies a span across processes: W3C Trace Context, `traceparent`.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// Request header that names the caller's span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static(NAME);
const NAME: &str = "traceparent";
/// Answer header that names the span of the answer (Trace Context, level 2).
pub const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// A version later than ours may be longer, never shorter.
const LENGTH_MIN: usize = 55;

/// A span of a sampled trace, which later spans continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// `None`: the text names no span, or one that is not sampled.
    pub fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::of(&read(text)?)
    }

    pub(super) fn of(span: &SpanContext) -> Option<TraceContext> {
        (span.is_valid() && span.is_sampled()).then(|| TraceContext(span.clone()))
    }

    pub(super) fn span_context(&self) -> &SpanContext {
        &self.0
    }

    /// The parent context for a span under this one.
    pub(super) fn as_parent(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

/// In the format of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = &self.0;
        write!(
            f,
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags()
        )
    }
}

/// The span to which a request belongs. Several headers count as none.
pub(super) fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    read(value.to_str().ok()?)
}

fn read(text: &str) -> Option<SpanContext> {
    if text.len() < LENGTH_MIN {
        return None;
    }
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &OnlyTraceparent(text));
    let span = context.span().span_context().clone();
    span.is_valid().then(|| {
        SpanContext::new(
            span.trace_id(),
            span.span_id(),
            span.trace_flags(),
            true,
            // Vendor data of the caller: not used here, and not forwarded to the operators of endpoints.
            TraceState::NONE,
        )
    })
}

struct OnlyTraceparent<'a>(&'a str);

impl Extractor for OnlyTraceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == NAME).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![NAME]
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_written_context_can_be_parsed() {
        assert_eq!(TraceContext::parse(SAMPLED).unwrap().to_string(), SAMPLED);
    }

    #[test]
    fn a_text_that_names_no_sampled_span_is_none() {
        for text in [
            "",
            "00-1-1-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_caller_is_identified_by_one_header_sampled_or_not() {
        let mut headers = HeaderMap::new();
        assert_eq!(caller(&headers), None);
        let unsampled = SAMPLED.replace("-01", "-00");
        headers.insert(TRACEPARENT, HeaderValue::from_str(&unsampled).unwrap());
        assert!(!caller(&headers).unwrap().is_sampled());
        headers.append(TRACEPARENT, HeaderValue::from_static(SAMPLED));
        assert_eq!(caller(&headers), None);
    }
}
