//! The HTTP API.
//!
//! Invariant: every error answer has one shape, an RFC 9457 problem document ([`Problem`]) with `x-request-id`, whether a handler,
//! an extractor, the router or a caught panic refused the request. Kept in two places: `problem.rs` converts the errors of rooms,
//! and `server/middleware.rs` converts any other answer with an error status.
//!
//! A handler is thin: it extracts ([`Authenticated`], [`JsonBody`], [`Query`], [`Path`]), calls one function of a room and
//! answers. Its file has `routes()`, which `router.rs` merges. The same declaration feeds OpenAPI, so an undocumented route
//! cannot exist.
//!
//! | folder or file | what it is for |
//! |---|---|
//! | `auth/` | tokens, tickets, roles, rate limit |
//! | `resources/` | meters, readings, events, the live feed |
//! | `admin/` | the admin API, one file per resource |
//! | `queue_console/` | the queue console for admins, a web page |
//! | `operations/` | health and metrics |
//! | `server/` | connections, their drain, and the middleware |
//! | `state`, `chain_access`, `live_feed`, `origin` | the state that handlers share, in parts |
//! | `problem`, `problem_kind` | error answers |
//! | `extract`, `page` | request bodies and parameters |
//! | `router`, `openapi`, `console` | all routes, their documentation, the start page |

mod admin;
mod auth;
mod chain_access;
mod console;
mod csp_hash;
mod extract;
mod live_feed;
mod openapi;
mod operations;
mod origin;
mod page;
mod problem;
mod problem_kind;
mod queue_console;
mod resources;
mod router;
mod server;
mod state;
#[cfg(test)]
mod test_support;

pub use auth::authenticated::{AdminOnly, Authenticated};
pub use auth::authenticator::{Authenticator, TokenKeys};
pub use auth::caller_auth::CallerAuth;
pub use auth::principal::Principal;
pub use chain_access::{ChainAccess, MintingStatus, ShownSettings};
pub use extract::{JsonBody, JsonEnvelope, Path, Query, parse_object};
pub use live_feed::LiveFeed;
pub use operations::operations_state::Operations;
pub use operations::router::operations_router;
pub use origin::CorsOrigins;
pub use problem::{Problem, ProblemDocument};
pub use problem_kind::ProblemKind;
pub use router::router;
pub use server::accept::{CALLERS_MAX, serve};
pub use server::drain::{ConnectionDrain, DrainReport};
pub use server::http_server::HttpServer;
pub use state::AppState;
