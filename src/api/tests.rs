//! The door's promises, without a database: one shape of refusal, ids, documentation that works offline.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::router::{documented_routes, with_middleware};
use super::state::test_state;
use super::{AdminOnly, AppState, Authenticated, JsonBody, Problem, router};
use crate::meters::Role;

/// Nothing listens there.
const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:9/none";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name}"))
            .to_str()
            .unwrap()
    }

    /// The sentence of a problem document, all of whose members are checked.
    fn problem(&self, status: u16, slug: &str) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(self.status.as_u16(), status, "{document}");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("/problems/{slug}"));
        assert!(document["title"].is_string());
        assert_eq!(document["detail"], document["error"]);
        document["error"].as_str().unwrap().to_owned()
    }
}

async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    assert!(parts.headers.contains_key("x-request-id"));
    assert_eq!(parts.headers["x-content-type-options"], "nosniff");
    assert!(parts.headers.contains_key("content-security-policy"));
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .unwrap()
}

fn with_token(path: &str, token: &str) -> Request<Body> {
    Request::builder()
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap()
}

fn with_json(body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri("/sample")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

fn token(state: &AppState, role: Role) -> String {
    state
        .authenticator
        .issue("somebody", role, Duration::from_secs(60))
        .unwrap()
}

#[derive(Deserialize)]
struct Sample {
    name: String,
}

/// A few routes that show what extractors and middleware do.
fn sample_routes(state: AppState) -> Router {
    let routes = Router::new()
        .route(
            "/sample",
            post(|JsonBody(sample): JsonBody<Sample>| async { sample.name }),
        )
        .route(
            "/own",
            get(|Authenticated(principal): Authenticated| async { principal.caller.subject }),
        )
        .route("/admins", get(|_: AdminOnly| async { "admins" }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a secret cause");
                }
            }),
        )
        .route(
            "/busy",
            get(|| async { Problem::unavailable("come back later") }),
        );
    with_middleware(routes, state)
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let router = router(test_state(NO_DATABASE, 100));
    for path in ["/nothing", "/api/nothing", "/docs/nothing.js", "//"] {
        let answer = call(&router, request("GET", path)).await;
        assert!(answer.problem(404, "not-found").contains("GET /docs"));
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_says_which_are() {
    let router = router(test_state(NO_DATABASE, 100));
    for path in ["/health/live", "/", "/api/openapi.json", "/metrics"] {
        let answer = call(&router, request("DELETE", path)).await;
        let sentence = answer.problem(405, "method-not-allowed");
        assert_eq!(
            sentence,
            "DELETE is not allowed here; the header `Allow` lists what is"
        );
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_problems() {
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
    // Without a declared length the limit is noticed on the way.
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

#[tokio::test]
async fn a_token_is_demanded_and_its_role_counts() {
    let state = test_state(NO_DATABASE, 100);
    let router = sample_routes(state.clone());

    let none = call(&router, request("GET", "/own")).await;
    assert_eq!(
        none.json(),
        json!({
            "type": "/problems/unauthorized",
            "title": "Unauthorized",
            "status": 401,
            "detail": "a bearer token is needed: send `Authorization: Bearer TOKEN`",
            "error": "a bearer token is needed: send `Authorization: Bearer TOKEN`",
        })
    );
    assert_eq!(
        none.header("www-authenticate"),
        "Bearer realm=\"gridtokenx\""
    );

    let bad = call(&router, with_token("/own", "a.b.c")).await;
    bad.problem(401, "unauthorized");
    assert!(
        bad.header("www-authenticate")
            .contains("error=\"invalid_token\"")
    );
    assert!(!bad.body.contains("a.b.c"));

    let user = token(&state, Role::User);
    let in_url = call(&router, request("GET", &format!("/own?token={user}"))).await;
    in_url.problem(401, "unauthorized");
    let own = call(&router, with_token("/own", &user)).await;
    assert_eq!(own.body, "somebody");
    let refused = call(&router, with_token("/admins", &user)).await;
    refused.problem(403, "forbidden");
    let admin = token(&state, Role::Admin);
    assert_eq!(
        call(&router, with_token("/admins", &admin)).await.body,
        "admins"
    );
}

#[tokio::test]
async fn past_its_share_a_subject_is_told_when_to_come_back() {
    let state = test_state(NO_DATABASE, 3);
    let router = sample_routes(state.clone());
    let token = token(&state, Role::User);
    for _ in 0..3 {
        let answer = call(&router, with_token("/own", &token)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let refused = call(&router, with_token("/own", &token)).await;
    refused.problem(429, "rate-limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_panic_costs_its_request_and_tells_nothing() {
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
async fn nul_in_an_address_is_refused_before_the_database_sees_it() {
    let router = router(test_state(NO_DATABASE, 100));
    for path in ["/api/readings?meter_id=a%00b", "/api/readings/%00"] {
        let answer = call(&router, request("GET", path)).await;
        answer.problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn only_configured_origins_may_call_from_a_browser() {
    let router = router(test_state(NO_DATABASE, 100));
    let preflight = |origin: &str| {
        Request::builder()
            .method("OPTIONS")
            .uri("/api/admin/tokenization/status")
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = call(&router, preflight("https://grid.example")).await;
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://grid.example"
    );
    let other = call(&router, preflight("https://elsewhere.example")).await;
    assert!(!other.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn readiness_answers_within_two_seconds_whatever_hangs() {
    // Accepts connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let database = format!("postgres://nobody@{}/none", silent.local_addr().unwrap());
    let router = router(test_state(&database, 100));
    let started = std::time::Instant::now();
    let probe = || call(&router, request("GET", "/health/ready"));
    let (first, second) = tokio::join!(probe(), probe());
    assert!(started.elapsed() < Duration::from_secs(2));
    for answer in [first, second] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let document = answer.json();
        assert_eq!(document["status"], "unavailable");
        assert_eq!(document["checks"]["database"]["status"], "unavailable");
        for part in ["migrations", "queue"] {
            let check = &document["checks"][part];
            assert_eq!(check["status"], "unavailable");
            assert!(check["reason"].as_str().unwrap().starts_with("not known"));
        }
    }
    let live = call(&router, request("GET", "/health/live")).await;
    assert_eq!(live.json(), json!({"status": "ok"}));
    // A scrape goes on with what the process knows, and says that the rest is old.
    let metrics = call(&router, request("GET", "/metrics")).await;
    assert_eq!(metrics.status, StatusCode::OK);
    assert!(
        metrics
            .body
            .contains("\ngridtokenx_unminted_readings_count ")
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_draining_process_is_not_ready() {
    let state = test_state(NO_DATABASE, 100);
    let router = router(state.clone());
    state.health.start_draining();
    let answer = call(&router, request("GET", "/health/ready")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.json()["checks"]["shutdown"]["reason"],
        "this process is draining"
    );
}

#[tokio::test]
async fn the_documentation_is_served_and_loads_nothing_from_elsewhere() {
    let router = router(test_state(NO_DATABASE, 100));
    let redirect = call(&router, request("GET", "/docs")).await;
    assert!(redirect.status.is_redirection());
    assert_eq!(redirect.header("location"), "/docs/");
    for path in ["/docs/", "/docs/index.html"] {
        let page = call(&router, request("GET", path)).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(!page.body.contains("//cdn") && !page.body.contains("https://"));
    }
    let setup = call(&router, request("GET", "/docs/swagger-initializer.js")).await;
    assert!(setup.body.contains("/api/openapi.json"), "{}", setup.body);
    assert!(
        setup.body.contains(r#""validatorUrl": "none""#),
        "{}",
        setup.body
    );
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "index.css"] {
        let asset = call(&router, request("GET", &format!("/docs/{file}"))).await;
        assert_eq!(asset.status, StatusCode::OK, "{file}");
    }
}

#[tokio::test]
async fn the_openapi_document_is_whole() {
    let router = router(test_state(NO_DATABASE, 100));
    let document = call(&router, request("GET", "/api/openapi.json")).await;
    assert_eq!(document.header("content-type"), "application/json");
    let document = document.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(
        paths.len(),
        documented_routes().get_openapi().paths.paths.len()
    );
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{place}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status < &"400".to_owned()),
                "{place} never succeeds"
            );
            assert_eq!(
                responses["500"]["content"]["application/problem+json"]["schema"]["$ref"],
                "#/components/schemas/ProblemDocument",
                "{place}"
            );
            let is_guarded = operation["security"].is_array();
            assert_eq!(is_guarded, responses.contains_key("401"), "{place}");
            assert_eq!(
                is_guarded,
                path.starts_with("/api/") || path == "/ws",
                "{place}"
            );
        }
    }
    let mut ids: Vec<_> = paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let operations = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), operations, "two operations share an id");
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(target) if name == "$ref" => found.push(target.clone()),
                    other => collect_references(other, found),
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_console_is_one_page_with_a_policy_of_its_own() {
    let router = router(test_state(NO_DATABASE, 100));
    let page = call(&router, request("GET", "/")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}
