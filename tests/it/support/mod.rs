//! What the tests share: one Postgres cluster and one local chain for the run, and for each test a [`Grid`] of its own.

pub mod backlog;
pub mod backup;
pub mod client;
pub mod collector;
pub mod database_proxy;
pub mod ears;
pub mod events;
pub mod grid;
pub mod identity_provider;
pub mod listener_proxy;
pub mod localnet;
pub mod proxy;
pub mod readings;
pub mod schema;
pub mod secrets;
pub mod server;
pub mod wait;
pub mod wire;
pub mod world;

pub use backlog::insert_backlog;
pub use client::{Api, Meter};
pub use collector::{Collector, Exported};
pub use ears::{Ears, Next};
pub use grid::Grid;
pub use identity_provider::IdentityProvider;
pub use listener_proxy::ListenerProxy;
pub use proxy::{Proxy, ProxyProgram, Verdict};
pub use server::Server;
pub use wait::eventually;
pub use wire::{Heard, Wire};
