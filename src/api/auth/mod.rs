//! Authentication: a bearer token names a subject and a role, a ticket opens one stream, and each subject has a rate limit.
//!
//! | file | what it does |
//! |---|---|
//! | `authenticator` | checks tokens, and makes those of development |
//! | `principal` | the caller that a token identifies: the rules for its claims |
//! | `key_set`, `known_keys`, `jwks_client`, `published_keys` | an identity provider's keys: kept up to date, cached, fetched, parsed |
//! | `rate_limit` | requests per subject and minute |
//! | `caller_auth` | token and rate limit together: what handlers take |
//! | `bearer_token`, `authenticated` | the token of a request; the extractors `Authenticated` and `AdminOnly` |
//! | `stream_credential`, `stream_auth` | reads the credential of a stream's client; authenticates it |
//! | `ticket` | `POST /api/ws/ticket` |

pub mod authenticated;
pub mod authenticator;
mod bearer_token;
pub mod caller_auth;
mod jwks_client;
pub mod key_set;
mod known_keys;
pub mod principal;
mod published_keys;
pub mod rate_limit;
pub mod stream_auth;
pub mod stream_credential;
pub mod ticket;
