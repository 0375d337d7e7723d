//! Health and metrics, for orchestrators and Prometheus, without a token.
//!
//! | file | what it does |
//! |---|---|
//! | `health` | `GET /health/live`, `GET /health/ready` |
//! | `database_probe`, `submission_tables` | whether a reading and its job could be stored now |
//! | `metrics` | `GET /metrics` |
//! | `database_figures` | the figures in it that are read from the database |
//! | `operations_state` | the state of their handlers |
//! | `router` | their routes, and all routes of a worker |

mod database_figures;
mod database_probe;
mod health;
mod metrics;
pub mod operations_state;
pub mod router;
mod submission_tables;
