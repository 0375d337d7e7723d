//! The private PostgreSQL cluster and the local chain of `make run` and of the tests.
//!
//! Invariant: stored data survives whatever happens to a process. Server and chain are separate programs, each in its own
//! process group, without a parent-death signal: a `kill -9` of the owner leaves them running, and the next start adopts them
//! or, when they do not answer, stops them. Leftovers never make a start fail. A directory appears under its final name only
//! when it is complete, and a lost one is never silently replaced by an empty one.
//!
//! Leftovers are found by searching for the running program that was started on our directory, not by a file with a process
//! id: the owner may die between the start of the program and the writing of such a file. What breaks this: two owners of one
//! directory at the same time; the owner must exclude that with a lock.
//!
//! | file | what it does |
//! |---|---|
//! | `postgres_cluster` | a cluster: created, started or adopted, restarted and stopped |
//! | `postgres_options`, `data_location`, `server_user`, `binaries` | its options, directory, user and programs |
//! | `initdb` | creates it, completely or not at all |
//! | `postgres_server` | its running server |
//! | `watchdog` | ends a temporary cluster together with its creator |
//! | `localnet` | the local chain |
//! | `child_process`, `log_file` | a program in its own process group, and its log |
//! | `error` | the errors with which neither of them starts |
//!
//! ```no_run
//! use gridtokenx::embedded::{Lifetime, PostgresCluster, PostgresOptions};
//!
//! # async fn example() -> Result<(), gridtokenx::embedded::EmbeddedError> {
//! let mut cluster = PostgresCluster::start(PostgresOptions::durable(".gridtokenx/postgres")).await?;
//! let url = cluster.database_url();
//! cluster.exited().await;
//! cluster.ensure_alive().await?; // again on the same port and state
//! cluster.stop().await;
//! # Ok(())
//! # }
//! ```

mod binaries;
mod child_process;
mod data_location;
mod error;
mod initdb;
mod localnet;
mod log_file;
mod postgres_cluster;
mod postgres_options;
mod postgres_server;
mod server_user;
mod watchdog;

pub use child_process::ChildProcess;
pub use error::EmbeddedError;
pub use localnet::Localnet;
pub use postgres_cluster::PostgresCluster;
pub use postgres_options::{Lifetime, PostgresOptions};
