//! HTTP: the street door of the service.
//!
//! Invariant: whoever knocks gets an answer of one shape. Every refusal is an RFC 9457 problem document ([`Problem`]) with
//! `x-request-id`, whether a handler, an extractor, the router or a caught panic refused. Kept in two places: rooms' errors
//! become problems in `problem.rs`, and whatever else leaves the router with an error status is turned into one by `server/middleware.rs`.
//!
//! A handler is thin: it extracts ([`Authenticated`], [`JsonBody`], [`Query`], [`Path`]), calls one function of a room and
//! answers. Its file offers `routes()`, which `router.rs` merges; the same declaration feeds OpenAPI, so a route that is not
//! documented cannot exist.

mod admin;
mod auth;
mod console;
mod extract;
mod openapi;
mod operations;
mod page;
mod problem;
mod queue_console;
mod resources;
mod router;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use auth::authenticator::{AuthError, Authenticator, Principal, TokenKeys};
pub use auth::caller::{AdminOnly, Authenticated};
pub use auth::jwks::KeySet;
pub use auth::rate_limit::RateLimiter;
pub use extract::{JsonBody, JsonEnvelope, Path, Query, parse_object};
pub use operations::state::{Operations, operations_router};
pub use problem::{Problem, ProblemDocument, ProblemKind};
pub use router::router;
pub use server::drain::{ConnectionDrain, DrainReport};
pub use server::http_server::{CALLERS_MAX, HttpServer, serve};
pub use state::{AppState, Services};
