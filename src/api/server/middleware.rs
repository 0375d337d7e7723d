//! The middleware around every request, outermost on its way in and out: request id, log line, metrics, security headers, the
//! time limit, and the guarantee that every error answer is a problem document.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;
use uuid::Uuid;

use super::probes_only::ProbesOnly;
use crate::api::admin::trigger::{TRIGGER_PATH, WAIT_SECS_MAX};
use crate::api::problem::{PROBLEM_JSON, Problem};
use crate::api::problem_kind::ProblemKind;
use crate::telemetry::names;
use crate::telemetry::traces::{Span, TRACERESPONSE};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id accepted from a client, bytes: it is logged and sent back.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// A request that has not been answered by then is refused. Bodies, database transactions and waits for a batch have
/// their own, shorter limits; this one bounds everything else. A stream is answered at once and continues beyond it.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long a request to this route may take. The answer of a trigger waits for its batch as long as its caller requests.
fn limit_of(route: &str) -> Duration {
    if route == TRIGGER_PATH {
        REQUEST_LIMIT + Duration::from_secs(WAIT_SECS_MAX.into())
    } else {
        REQUEST_LIMIT
    }
}

/// The route of a request that matches none.
const NO_ROUTE: &str = "(none)";

/// Gives a request its id, span, log line and metrics, and its answer the headers that every answer has.
pub async fn request_context(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(NO_ROUTE.to_owned(), |route| route.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        request_id = %request_id,
        // The result of a submission. The handler records it, so that the log line leads to those of its jobs.
        reading_id = Empty,
        accepted = Empty,
        duplicates = Empty,
        rejected = Empty,
    );
    let trace = begin_trace(&request, &route);
    let answered = async {
        let answer = with_timeout(request, next, limit_of(&route)).await;
        let mut response = into_problem_document(&method, answer).await;
        let duration = started.elapsed();
        if !is_monitoring(&route) {
            count(response.status(), duration);
        }
        tracing::info!(
            %method,
            route,
            status = response.status().as_u16(),
            // Microseconds of a request are exact as a float.
            duration_ms = duration.as_micros() as f64 / 1000.0,
            "request answered"
        );
        security_headers(response.headers_mut());
        response
    };
    let mut response = trace.around(answered.instrument(span)).await;
    trace.answered(response.status());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some(context) = trace.context()
        && let Ok(value) = HeaderValue::try_from(context.to_string())
    {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    response
}

/// None for probes and scrapes: they would outnumber the requests of users.
fn begin_trace(request: &Request, route: &str) -> Span {
    if is_monitoring(route) {
        return Span::none();
    }
    let route = (route != NO_ROUTE).then_some(route);
    Span::of_request(request.method(), route, request.headers())
}

/// The client's own id if it is short and visible ASCII, else a new one that sorts by time.
fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The reason for which this request is refused, if only probes and scrapes are answered.
fn refused_for_probes(request: &Request) -> Option<ProbesOnly> {
    let path = request.uri().path();
    let is_probe = path.starts_with("/health/") || path == "/metrics";
    let only = request.extensions().get::<ProbesOnly>().copied();
    only.filter(|_| !is_probe)
}

async fn with_timeout(request: Request, next: Next, limit: Duration) -> Response {
    if let Some(only) = refused_for_probes(&request) {
        return Problem::unavailable(only.sentence()).into_response();
    }
    let uri = request.uri();
    let has_nul = |part: &str| part.contains("%00");
    if has_nul(uri.path()) || uri.query().is_some_and(has_nul) {
        return Problem::new(
            ProblemKind::MalformedRequest,
            "the URL has U+0000 (%00), which cannot be stored or searched for",
        )
        .into_response();
    }
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!(
            "the request was not answered within {} s and may still be carried out; \
             the same submission again is recognised as a duplicate",
            limit.as_secs()
        ))
        .into_response(),
    }
}

/// Turns an error answer of a library (the router, an extractor) into a problem document.
async fn into_problem_document(method: &Method, response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let sentence = match status {
        StatusCode::NOT_FOUND => {
            "there is nothing at this path; `GET /docs` lists the paths".to_owned()
        }
        // The router adds `Allow` after this.
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{method} is not allowed here; the header `Allow` lists what is")
        }
        _ => sentence_of(body).await.unwrap_or_else(|| {
            let reason = status.canonical_reason().unwrap_or("the request failed");
            format!("{status}: {reason}")
        }),
    };
    let mut document = Problem::new(ProblemKind::of_status(status), sentence).into_response();
    *document.status_mut() = status;
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            document.headers_mut().insert(name, value.clone());
        }
    }
    document
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        *value == PROBLEM_JSON || value.as_bytes().starts_with(b"application/json")
    })
}

/// The explanation of a library: one short line.
async fn sentence_of(body: Body) -> Option<String> {
    const SENTENCE_BYTES_MAX: usize = 1_000;
    let bytes = axum::body::to_bytes(body, SENTENCE_BYTES_MAX).await.ok()?;
    let sentence = std::str::from_utf8(&bytes).ok()?.trim();
    (!sentence.is_empty()).then(|| sentence.to_owned())
}

/// Probes and scrapes come at a steady rate whatever users do. Counted, they would hide how many of the users' requests fail,
/// and a drain, which probes see as 503, would look like an outage.
fn is_monitoring(route: &str) -> bool {
    route == "/metrics" || route.starts_with("/health/")
}

fn count(status: StatusCode, duration: Duration) {
    let class = usize::from(status.as_u16() / 100).clamp(1, names::STATUS_CLASSES.len());
    metrics::counter!(names::HTTP_REQUESTS, "status" => names::STATUS_CLASSES[class - 1])
        .increment(1);
    metrics::histogram!(names::HTTP_REQUEST_SECONDS).record(duration);
}

/// Headers that keep browsers from guessing content types, framing pages and sending referrers.
fn security_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pages set their own policy; no other answer is a document that loads anything.
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
}

/// A panic in a handler fails its request and nothing else. The cause was logged where it occurred.
pub fn answer_to_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal_already_logged().into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::api::router::router;
    use crate::api::test_support::{NO_DATABASE, call, request, sample_routes, test_state};

    #[test]
    fn a_valid_request_id_is_kept_and_an_invalid_one_replaced() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(with("abc-123"), "abc-123");
        assert_eq!(with(&"x".repeat(128)), "x".repeat(128));
        for odd in ["", "two words", &"x".repeat(129)] {
            let id = with(odd);
            assert_eq!(Uuid::parse_str(&id).unwrap().get_version_num(), 7, "{odd}");
        }
    }

    #[tokio::test]
    async fn a_panic_fails_its_request_and_reveals_nothing() {
        let router = sample_routes(test_state(NO_DATABASE, 100));
        let answer = call(&router, request("GET", "/panic")).await;
        let sentence = answer.problem(500, "internal-error");
        assert!(sentence.contains("x-request-id"));
        assert!(!answer.body.contains("secret"));
        let busy = call(&router, request("GET", "/busy")).await;
        busy.problem(503, "unavailable");
        assert_eq!(busy.header("retry-after"), "2");
    }

    #[tokio::test]
    async fn the_request_id_is_the_clients_or_a_new_one() {
        let router = router(test_state(NO_DATABASE, 100));
        let with_id = |id: &str| {
            Request::builder()
                .uri("/health/live")
                .header("x-request-id", id)
                .body(Body::empty())
                .unwrap()
        };
        let kept = call(&router, with_id("order-66")).await;
        assert_eq!(kept.header("x-request-id"), "order-66");
        let replaced = call(&router, with_id("two words")).await;
        let id = Uuid::parse_str(replaced.header("x-request-id")).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }

    #[tokio::test]
    async fn nul_in_a_url_is_refused_before_the_database_sees_it() {
        let router = router(test_state(NO_DATABASE, 100));
        for path in ["/api/readings?meter_id=a%00b", "/api/readings/%00"] {
            let answer = call(&router, request("GET", path)).await;
            answer.problem(400, "malformed-request");
        }
    }
}
