//! The OpenAPI document and its browsable page.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, Ref, RefOr, ResponseBuilder, SecurityRequirement};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::problem::ProblemDocument;
use super::problem_kind::ProblemKind;
use super::state::AppState;

const DOCUMENT_PATH: &str = "/api/openapi.json";

/// Swagger UI has inline styles, and images in its styles; its scripts are files of this service.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "GridTokenX",
        description = "Smart meters report energy; for every kilowatt-hour this service mints SPL tokens on Solana into the \
                       meter owner's wallet, each accepted reading exactly once.\n\nAmounts are strings, because they exceed 2^53. \
                       Unknown members of a request are ignored. Every error answer is an RFC 9457 problem document, and every \
                       answer has `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemDocument)),
    tags(
        (name = "meters", description = "Meters and the readings that they report"),
        (name = "readings", description = "Readings and their states"),
        (name = "feed", description = "Events, numbered without gaps: pages, server-sent events, WebSocket"),
        (name = "admin", description = "Only for admins"),
        (name = "operations", description = "Health and metrics, without a token"),
    ),
)]
struct Head;

/// Title, tags and security scheme; the routes add the paths.
pub fn head() -> utoipa::openapi::OpenApi {
    let mut document = Head::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "JWT with `sub`, `role` (\"user\" or \"admin\") and `exp`. `make -s token ROLE=user` prints one for development.",
        ))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    document
}

/// `GET /api/openapi.json` and `GET /docs`, which loads nothing from other hosts.
pub fn routes(mut document: utoipa::openapi::OpenApi) -> Router<AppState> {
    complete(&mut document);
    let json = document.to_json().unwrap_or_else(|error| {
        // Strings, numbers and maps with string keys: serde_json always serializes them.
        unreachable!("an OpenAPI document is always JSON: {error}")
    });
    let json = Bytes::from(json);
    let swagger = SwaggerUi::new("/docs").config(
        Config::from(DOCUMENT_PATH)
            .validator_url("none")
            .try_it_out_enabled(true),
    );
    Router::from(swagger)
        .layer(middleware::from_fn(docs_policy))
        .route(
            DOCUMENT_PATH,
            get(|| async move { ([(header::CONTENT_TYPE, "application/json")], json) }),
        )
}

async fn docs_policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(DOCS_POLICY),
    );
    response
}

/// Adds what handlers leave out: an operation id that is unique in the document, and the errors of extractors and middleware, so
/// that a handler declares only its own.
fn complete(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in [
            ("get", &mut item.get),
            ("put", &mut item.put),
            ("post", &mut item.post),
            ("delete", &mut item.delete),
            ("patch", &mut item.patch),
        ] {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(operation_id(method, path));
            for kind in problems_of(operation) {
                operation
                    .responses
                    .responses
                    .entry(kind.status().as_str().to_owned())
                    .or_insert_with(|| problem_response(kind));
            }
        }
    }
}

/// `get_api_readings_id` for GET `/api/readings/{id}`.
fn operation_id(method: &str, path: &str) -> String {
    path.split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn problems_of(operation: &Operation) -> Vec<ProblemKind> {
    let mut kinds = vec![ProblemKind::InternalError, ProblemKind::Unavailable];
    let has_body = operation.request_body.is_some();
    let has_parameters = operation
        .parameters
        .as_ref()
        .is_some_and(|parameters| !parameters.is_empty());
    if has_body || has_parameters {
        kinds.push(ProblemKind::MalformedRequest);
    }
    if has_body {
        kinds.extend([
            ProblemKind::RequestTimeout,
            ProblemKind::PayloadTooLarge,
            ProblemKind::UnsupportedMediaType,
        ]);
    }
    let needs_token = operation.security.as_ref().is_some_and(|security| {
        !security.is_empty() && !security.contains(&SecurityRequirement::default())
    });
    if needs_token {
        kinds.extend([ProblemKind::Unauthorized, ProblemKind::RateLimited]);
    }
    let for_admins = operation
        .tags
        .as_ref()
        .is_some_and(|tags| tags.iter().any(|tag| tag == "admin"));
    if for_admins {
        kinds.push(ProblemKind::Forbidden);
    }
    kinds
}

fn problem_response(kind: ProblemKind) -> RefOr<utoipa::openapi::Response> {
    let content: Content = ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("ProblemDocument"))))
        .example(Some(serde_json::json!({
            "type": kind.uri(),
            "title": kind.title(),
            "status": kind.status().as_u16(),
            "detail": "what is wrong, and what to do",
            "error": "what is wrong, and what to do",
        })))
        .build();
    let response = ResponseBuilder::new()
        .description(kind.title())
        .content("application/problem+json", content)
        .build();
    RefOr::T(response)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::Value;

    use crate::api::router::router;
    use crate::api::test_support::{NO_DATABASE, call, request, test_state};

    #[tokio::test]
    async fn the_documentation_is_served_and_loads_nothing_from_other_hosts() {
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
    async fn the_openapi_document_is_complete() {
        let router = router(test_state(NO_DATABASE, 100));
        let document = call(&router, request("GET", "/api/openapi.json")).await;
        assert_eq!(document.header("content-type"), "application/json");
        let document = document.json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(
            paths.len(),
            crate::api::router::documented_routes()
                .get_openapi()
                .paths
                .paths
                .len()
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
}
