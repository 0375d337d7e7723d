//! Health and metrics: what orchestrators and Prometheus query, without a token.

pub mod health;
pub mod metrics;
pub mod state;
