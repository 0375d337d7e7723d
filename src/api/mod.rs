//! HTTP: the street door of the service.
//!
//! Invariant: whoever knocks gets an answer of one shape. Every refusal is an RFC 9457 problem document ([`Problem`]) with
//! `x-request-id`, whether a handler, an extractor, the router or a caught panic refused. Kept in two places: rooms' errors
//! become problems in `problem.rs`, and whatever else leaves the router with an error status is dressed by `edge.rs`.
//!
//! A handler is thin: it extracts ([`Authenticated`], [`JsonBody`], [`Query`], [`Path`]), calls one function of a room and
//! answers. Its file offers `routes()`, which `router.rs` merges; the same declaration feeds OpenAPI, so a route that is not
//! documented cannot exist.

mod admin;
mod auth;
mod authenticator;
mod console;
mod doorkeeper;
mod edge;
mod entrance;
mod event_stream;
mod events;
mod extract;
mod health;
mod jwks;
mod meters;
mod metrics;
mod openapi;
mod operations;
mod page;
mod problem;
mod queue_console;
mod rate_limit;
mod readings;
mod router;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod ticket;
mod websocket;

pub use auth::{AdminOnly, Authenticated};
pub use authenticator::{AuthError, Authenticator, Principal, TokenKeys};
pub use doorkeeper::{Doorkeeper, Farewell};
pub use extract::{JsonBody, JsonEnvelope, Path, Query, parse_object};
pub use jwks::KeySet;
pub use operations::{Operations, operations_router};
pub use problem::{Problem, ProblemDocument, ProblemKind};
pub use rate_limit::RateLimiter;
pub use router::router;
pub use server::{CALLERS_MAX, Door, serve};
pub use state::{AppState, Services};
