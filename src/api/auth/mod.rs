//! Who calls: bearer tokens and the keys that sign them, tickets, roles, and the rate limit of a subject.

pub mod authenticator;
pub mod caller;
pub mod jwks;
pub mod rate_limit;
pub mod stream_auth;
pub mod ticket;
