//! What the tests share: one Postgres cluster and one local chain for the run, and for each test a [`Grid`] of its own.

pub mod backlog;
pub mod backup;
pub mod client;
pub mod collector;
pub mod database_proxy;
pub mod events;
pub mod feed_client;
pub mod grid;
pub mod identity_provider;
pub mod listener_proxy;
pub mod localnet;
pub mod proxy;
pub mod raw_websocket;
pub mod readings;
pub mod schema;
pub mod secrets;
pub mod server;
pub mod wait;
pub mod world;

pub use backlog::insert_backlog;
pub use client::{Api, Meter};
pub use collector::{Collector, Exported};
pub use feed_client::{FeedClient, Next};
pub use grid::Grid;
pub use identity_provider::IdentityProvider;
pub use listener_proxy::ListenerProxy;
pub use proxy::{Proxy, ProxyProgram, Verdict};
pub use raw_websocket::{RawWebSocket, Received};
pub use server::Server;
pub use wait::eventually;
