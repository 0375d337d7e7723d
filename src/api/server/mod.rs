//! Connections: how they are accepted, served and drained, and the middleware around every request.
//!
//! | file | what it does |
//! |---|---|
//! | `http_server` | what is served, and to which connections |
//! | `accept` | accepts connections within the limits |
//! | `connection`, `connection_activity` | serves one; what goes on in it |
//! | `drain` | ends them in order when the service shuts down |
//! | `probes_only` | while draining or overloaded, only probes are answered |
//! | `middleware`, `layers` | what every request passes on its way in and out |

pub mod accept;
mod connection;
pub mod connection_activity;
pub mod drain;
pub mod http_server;
pub mod layers;
pub mod middleware;
mod probes_only;
