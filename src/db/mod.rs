//! The database: how a process connects, which limits every statement has, and how SQL represents the domain's types.
//!
//! Invariant: no caller waits for the database indefinitely. Sessions carry the server's limits ([`open`]), callers wait
//! [`within`] their own limit, because a server that hangs enforces nothing, and a connection whose answer did not come is
//! closed, never handed to the next caller ([`GuardedConnection`]). Transactions are begun by [`begin()`] only: a caller that gives
//! up leaves none open on a pooled connection. A bare `.await` on a query outside a limited caller
//! breaks this.
//!
//! | file | what it does |
//! |---|---|
//! | `pool` | opens the pool, sets up its sessions, refuses a pooler in transaction mode, runs the migrations |
//! | `migrations` | the schema that this version works on |
//! | `begin` | begins a transaction, whatever becomes of its caller |
//! | `guarded_connection` | closes a connection in doubt instead of returning it to the pool |
//! | `timeout` | the limit on one query or transaction |
//! | `lock_session` | a session-level advisory lock on a dedicated connection |
//! | `leader_lock` | loops that one process runs at a time, and work that one process does at a time |
//! | `sqlstate` | what an error of the database means: try again, unavailable, bad row, schema mismatch |
//! | `types` | the domain's types in SQL |
//!
//! Which statements are run, on which tables, is the business of the rooms above.

mod begin;
mod guarded_connection;
mod leader_lock;
mod lock_session;
mod migrations;
mod pool;
mod sqlstate;
mod timeout;
mod types;

pub use begin::{begin, begin_with};
pub use guarded_connection::GuardedConnection;
pub use leader_lock::{LeaderLock, run_as_leader, run_exclusive};
pub use lock_session::{AdvisoryKey, LockSession};
pub use migrations::{MigrationError, migrate, migration_versions};
pub use pool::{Database, OpenError, open};
pub use sqlstate::{ErrorClass, SqlCondition};
pub use timeout::{timed_out, within};
pub use types::BigInt;
