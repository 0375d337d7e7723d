//! Extractors of request bodies, queries and paths; each refuses with a problem document.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::problem_kind::ProblemKind;

/// Largest request body, bytes: 1,000 readings with the longest names and amounts take about 600 kB.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// How long a client may take to send its body. A megabyte over a slow mobile line takes a few seconds; a client that
/// sends byte by byte to hold a connection is refused.
const BODY_LIMIT: Duration = Duration::from_secs(20);

/// A JSON object as request body.
///
/// Refuses what serde_json alone would accept: an array instead of an object, U+0000 in a text (the database cannot store
/// it), and members that imitate serde_json's private representation of numbers and raw values.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = read_body(request).await?;
        parse_object(&body).map(JsonBody)
    }
}

/// A JSON object whose members are validated one by one: `T` keeps each as a `RawValue`, or as a type that parses one. Only the
/// outer shape is checked here, so that an invalid item does not affect the others.
#[derive(Debug)]
pub struct JsonEnvelope<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonEnvelope<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = read_body(request).await?;
        parse_shape(&body).map(JsonEnvelope)
    }
}

/// RFC 6839: `application/json` or any `application/…+json`, whatever its parameters.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    let is_json = essence.as_deref().is_some_and(|essence| {
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    if is_json {
        return Ok(());
    }
    let sentence = match content_type {
        Some(found) => format!(
            "the request body is declared as {found:?}; send JSON with `content-type: application/json`"
        ),
        None => "the request has no content-type; send JSON with `content-type: application/json`"
            .to_owned(),
    };
    Err(Problem::new(ProblemKind::UnsupportedMediaType, sentence))
}

async fn read_body(request: Request) -> Result<Vec<u8>, Problem> {
    match tokio::time::timeout(BODY_LIMIT, collect(request.into_body())).await {
        Ok(collected) => collected,
        Err(_) => Err(Problem::new(
            ProblemKind::RequestTimeout,
            format!(
                "the request body did not arrive within {} s; send it again without pause",
                BODY_LIMIT.as_secs()
            ),
        )),
    }
}

/// How many more bytes of a body that is too large are read and discarded: most clients read the answer only once they have sent
/// everything, and would see a broken connection instead of the 413.
const DISCARDED_BYTES_MAX: usize = 3 * BODY_BYTES_MAX;

async fn collect(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut kept = Vec::new();
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(
                ProblemKind::MalformedRequest,
                format!("the request body could not be read to its end: {error}"),
            )
        })?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        seen += bytes.len();
        if seen <= BODY_BYTES_MAX {
            kept.extend_from_slice(bytes);
        } else if seen > BODY_BYTES_MAX + DISCARDED_BYTES_MAX {
            break;
        }
    }
    if seen > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(kept)
}

fn too_large() -> Problem {
    Problem::new(
        ProblemKind::PayloadTooLarge,
        format!(
            "the request body is larger than {BODY_BYTES_MAX} bytes; send fewer readings at once"
        ),
    )
}

/// Parses one JSON object by the rules of [`JsonBody`]; the items of a bulk too.
///
/// Members that `T` does not have are ignored. Nested objects are not checked for arrays, so request types are flat, or
/// keep their items as `serde_json::value::RawValue` and parse each with this function.
pub fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    if let Some((offset, reason)) = forbidden_text(json) {
        let (line, column) = position(json, offset);
        return Err(Problem::new(
            ProblemKind::MalformedRequest,
            format!("{reason} at line {line} column {column}"),
        ));
    }
    parse_shape(json)
}

fn parse_shape<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    let malformed = |sentence: String| Err(Problem::new(ProblemKind::MalformedRequest, sentence));
    match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return malformed("the request body is empty; send a JSON object".to_owned()),
        Some(b'{') => {}
        // The parser explains a bare word or an unbalanced bracket better.
        Some(b'[') => {
            return malformed(
                "the request body is a JSON array; send a JSON object, as `GET /docs` shows it"
                    .to_owned(),
            );
        }
        Some(_) => {}
    }
    serde_json::from_slice(json).or_else(|error| {
        let what = if error.is_data() {
            "the request body does not fit"
        } else {
            "the request body is not valid JSON"
        };
        malformed(format!("{what}: {error}"))
    })
}

/// With the feature `arbitrary_precision`, serde_json passes numbers and raw values as maps with a member of this prefix. A
/// client that sends such a member would have its text read as a number.
const PRIVATE_MEMBERS: &str = "$serde_json::private::";

/// Finds the first string literal that no request may contain; the offset is that of its opening quote.
fn forbidden_text(json: &[u8]) -> Option<(usize, &'static str)> {
    let mut at = 0;
    while at < json.len() {
        if json[at] != b'"' {
            at += 1;
            continue;
        }
        let start = at;
        let mut escaped = false;
        at += 1;
        while at < json.len() && json[at] != b'"' {
            if json[at] == b'\\' {
                escaped = true;
                at += 1;
            }
            at += 1;
        }
        at = (at + 1).min(json.len());
        let literal = &json[start..at];
        let private = if escaped {
            // The parser explains a literal that does not decode.
            let Ok(text) = serde_json::from_slice::<String>(literal) else {
                continue;
            };
            if text.contains('\0') {
                return Some((start, "the text with U+0000 (NUL) cannot be stored"));
            }
            text.starts_with(PRIVATE_MEMBERS)
        } else {
            literal[1..].starts_with(PRIVATE_MEMBERS.as_bytes())
        };
        if private {
            return Some((start, "a member or text of this name is reserved"));
        }
    }
    None
}

/// Line and column, counted from 1 as serde_json does.
fn position(json: &[u8], offset: usize) -> (usize, usize) {
    let before = &json[..offset];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let line_start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    (line, offset - line_start + 1)
}

/// `axum::extract::Query` that refuses with a problem document.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// `axum::extract::Path` that refuses with a problem document.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

impl From<axum::extract::rejection::QueryRejection> for Problem {
    fn from(rejection: axum::extract::rejection::QueryRejection) -> Problem {
        Problem::new(
            ProblemKind::MalformedRequest,
            format!("the query does not fit: {}", rejection.body_text()),
        )
    }
}

impl From<axum::extract::rejection::PathRejection> for Problem {
    fn from(rejection: axum::extract::rejection::PathRejection) -> Problem {
        Problem::new(
            ProblemKind::MalformedRequest,
            format!("the path does not fit: {}", rejection.body_text()),
        )
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};

    use super::*;
    use crate::api::test_support::{NO_DATABASE, call, sample_routes, test_state, with_json};
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Sample {
        name: String,
        #[serde(default)]
        amount: Option<serde_json::Number>,
    }

    fn refusal(json: &str) -> String {
        parse_object::<Sample>(json.as_bytes())
            .unwrap_err()
            .sentence()
            .to_owned()
    }

    #[test]
    fn an_object_is_accepted_with_unknown_members_and_an_exact_number() {
        let sample: Sample = parse_object(
            br#" {"name":"a \"quoted\" name","amount":0.10000000000000000000001,"x":[1]}"#,
        )
        .unwrap();
        assert_eq!(sample.name, "a \"quoted\" name");
        assert_eq!(
            sample.amount.unwrap().to_string(),
            "0.10000000000000000000001"
        );
    }

    #[test]
    fn an_array_is_never_accepted_as_an_object() {
        assert!(serde_json::from_str::<Sample>(r#"["x", 1]"#).is_ok());
        assert!(refusal(r#"["x", 1]"#).contains("JSON array"));
    }

    #[test]
    fn the_private_number_member_is_refused_however_it_is_written() {
        for json in [
            r#"{"name":"x","amount":{"$serde_json::private::Number":"7"}}"#,
            r#"{"name":"x","amount":{"\u0024serde_json::private::Number":"7"}}"#,
            r#"{"name":"x","amount":{"$serde_json::private::RawValue":"7"}}"#,
        ] {
            assert_eq!(
                refusal(json),
                "a member or text of this name is reserved at line 1 column 23"
            );
        }
    }

    #[test]
    fn nul_is_refused_with_its_position() {
        assert_eq!(
            refusal("{\n  \"name\": \"a\\u0000b\"}"),
            "the text with U+0000 (NUL) cannot be stored at line 2 column 11"
        );
        // After an escaped backslash it is harmless.
        assert!(parse_object::<Sample>(br#"{"name":"a\\u0000b"}"#).is_ok());
    }

    #[test]
    fn errors_report_their_position() {
        assert_eq!(
            refusal("{\"name\": \n 7}"),
            "the request body does not fit: invalid type: integer `7`, expected a string at line 2 column 2"
        );
        assert!(refusal("{\"name\":").starts_with("the request body is not valid JSON: EOF"));
        assert!(refusal("").contains("empty"));
        assert!(refusal("\"unterminated").contains("line 1 column"));
        assert!(refusal(r#"{"name":"a","name":"b"}"#).contains("duplicate field"));
    }

    #[test]
    fn content_types() {
        let answer = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            require_json(&headers).is_ok()
        };
        assert!(answer("application/json"));
        assert!(answer("Application/JSON; charset=utf-8"));
        assert!(answer("application/vnd.meter+json"));
        assert!(!answer("text/plain"));
        assert!(!answer("application/x-www-form-urlencoded"));
        assert!(require_json(&HeaderMap::new()).is_err());
    }

    #[tokio::test]
    async fn invalid_bodies_are_refused_with_a_problem_document() {
        let router = sample_routes(test_state(NO_DATABASE, 100));
        let good = call(&router, with_json(r#"{"name":"x"}"#)).await;
        assert_eq!((good.status, good.body.as_str()), (StatusCode::OK, "x"));

        let malformed = call(&router, with_json("{\"name\":\n  }")).await;
        assert_eq!(
            malformed.problem(400, "malformed-request"),
            "the request body is not valid JSON: expected value at line 2 column 3"
        );
        let array = call(&router, with_json(r#"["x"]"#)).await;
        array.problem(400, "malformed-request");
        let deep = call(&router, with_json("{\"a\":".repeat(10_000))).await;
        deep.problem(400, "malformed-request");

        let text = Request::builder()
            .method("POST")
            .uri("/sample")
            .header(header::CONTENT_TYPE, "text/plain")
            .body(Body::from(r#"{"name":"x"}"#))
            .unwrap();
        let sentence = call(&router, text)
            .await
            .problem(415, "unsupported-media-type");
        assert!(
            sentence.contains("content-type: application/json"),
            "{sentence}"
        );

        let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
        let declared = call(&router, with_json(large.clone())).await;
        declared.problem(413, "payload-too-large");
        // Without a declared length the limit is detected while reading.
        let chunks = futures_util::stream::iter(
            large
                .into_bytes()
                .chunks(4096)
                .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
                .collect::<Vec<_>>(),
        );
        let streamed = call(&router, with_json(Body::from_stream(chunks))).await;
        streamed.problem(413, "payload-too-large");
    }
}
