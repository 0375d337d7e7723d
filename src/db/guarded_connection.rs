//! Closes a connection in doubt instead of returning it to the pool.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

/// A pooled connection that is closed when it is dropped, unless its user has called [`reuse`](Self::reuse).
///
/// A session whose answer did not come may be hung: the next caller would wait for it too. So the default is the safe one, even
/// where a future is dropped half way.
#[derive(Debug)]
pub struct GuardedConnection {
    connection: PoolConnection<Postgres>,
    is_reusable: bool,
}

impl GuardedConnection {
    pub async fn acquire(pool: &PgPool) -> sqlx::Result<GuardedConnection> {
        Ok(GuardedConnection {
            connection: pool.acquire().await?,
            is_reusable: false,
        })
    }

    /// Returns the connection to the pool: the session has answered every statement.
    pub fn reuse(mut self) {
        self.is_reusable = true;
    }
}

impl Deref for GuardedConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for GuardedConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for GuardedConnection {
    fn drop(&mut self) {
        if !self.is_reusable {
            self.connection.close_on_drop();
        }
    }
}
