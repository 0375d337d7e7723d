//! Connections: accepted, served, drained, and what every request passes on its way in and out.

pub mod drain;
pub mod http_server;
pub mod middleware;
