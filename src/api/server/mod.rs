//! Connections: how they are accepted, served and drained, and the middleware around every request.
//!
//! | file | what it does |
//! |---|---|
//! | `http_server` | the server: its routes and its connection limits |
//! | `accept` | accepts connections within the limits |
//! | `connection`, `connection_activity` | serves one; tracks its requests and streams |
//! | `drain` | ends them in order when the service shuts down |
//! | `probes_only` | while draining or overloaded, only probes are answered |
//! | `middleware`, `layers` | the middleware around every request |

pub mod accept;
mod connection;
pub mod connection_activity;
pub mod drain;
pub mod http_server;
pub mod layers;
pub mod middleware;
mod probes_only;
