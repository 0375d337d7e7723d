//! Begins a transaction in a way that survives a caller that gives up.

use std::time::Duration;

use sqlx::{PgPool, Postgres, Transaction};

use super::timeout::{timed_out, within};

/// Limit of a BEGIN whose caller has given up: one that is not answered by then never will be.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// Begins a transaction on a connection of the pool.
///
/// [`PgPool::begin`] must not be used: dropped after its BEGIN was sent and before the answer was read (by a time-out, a drain, a
/// lost lock), sqlx 0.9 returns the connection to the pool inside that transaction. What the next caller writes on it without a
/// transaction of its own is answered as stored, and is rolled back later. Here the BEGIN goes on in a task of its own, whose
/// transaction is rolled back if its caller is gone.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    begin_with(pool, "BEGIN").await
}

/// Like [`begin`], with a statement of its own, which may set more of the transaction.
pub async fn begin_with(
    pool: &PgPool,
    statement: &'static str,
) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { within(BEGIN_LIMIT, pool.begin_with(statement)).await });
    // Only a runtime that ends takes the task along.
    begun.await.unwrap_or_else(|_| Err(timed_out(BEGIN_LIMIT)))
}
