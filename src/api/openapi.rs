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

use crate::api::problem::{ProblemDocument, ProblemKind};
use crate::api::state::AppState;

const DOCUMENT_PATH: &str = "/api/openapi.json";

/// Swagger UI puts styles into its elements and pictures into its styles; its scripts are files of this service.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           frame-ancestors 'none'; form-action 'none'; base-uri 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "GridTokenX",
        description = "Smart meters report energy; for every kilowatt-hour this service mints SPL tokens on Solana into the \
                       meter owner's wallet, each accepted reading exactly once.\n\nAmounts are texts, since they pass 2^53. \
                       Unknown members of a request are ignored. Every refusal is an RFC 9457 problem document, and every \
                       answer carries `x-request-id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemDocument)),
    tags(
        (name = "meters", description = "Meters, and the readings that they report"),
        (name = "readings", description = "What became of a reading"),
        (name = "feed", description = "Events, numbered without gaps: pages, server-sent events, WebSocket"),
        (name = "admin", description = "For admins"),
        (name = "operations", description = "Health and metrics; no token needed"),
    ),
)]
struct Head;

/// Title, tags and security scheme; the paths are added by the routes.
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

/// `GET /api/openapi.json` and `GET /docs`, which loads nothing from elsewhere.
pub fn routes(mut document: utoipa::openapi::OpenApi) -> Router<AppState> {
    complete(&mut document);
    let json = document.to_json().unwrap_or_else(|error| {
        // Strings, numbers and maps with string keys: serde_json has no way to refuse them.
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

/// Completes what handlers leave out: a name that is single in the whole document, and the refusals that /// the middleware can give, so that a handler only declares its own.
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
            for kind in refusals_of(operation) {
                operation
                    .responses
                    .responses
                    .entry(kind.status().as_str().to_owned())
                    .or_insert_with(|| refusal(kind));
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

fn refusals_of(operation: &Operation) -> Vec<ProblemKind> {
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

fn refusal(kind: ProblemKind) -> RefOr<utoipa::openapi::Response> {
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
