//! Every event arrives once and in order at the clients that may see it.

mod authentication;
mod close_reasons;
mod connections;
mod delivery;
mod drain;
mod listen;
mod numbers;
mod oracle;
mod protocol;
mod replicas;
mod retention;
mod websocket;
