//! The limit on one query or transaction.

use std::time::Duration;

use tokio::time::timeout;

/// Waits for the database no longer than `limit`, then reports [`timed_out`].
///
/// The database may still execute the statement, so after a time-out at COMMIT the outcome is unknown to the caller. A
/// pooled connection that is still waiting for an answer is not reused: see [`GuardedConnection`](super::GuardedConnection) and
/// the release check of the pool.
pub async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    query: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, query)
        .await
        .unwrap_or_else(|_| Err(timed_out(limit).into()))
}

/// The error of a query that was not answered within `limit`.
pub fn timed_out(limit: Duration) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("no answer within {limit:?}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_within_the_limit_is_passed_through() {
        let answer: sqlx::Result<u8> = within(Duration::from_secs(5), async { Ok(7) }).await;
        assert_eq!(answer.unwrap(), 7);
        let failed: sqlx::Result<u8> = within(Duration::from_secs(5), async {
            Err(sqlx::Error::RowNotFound)
        })
        .await;
        assert!(matches!(failed, Err(sqlx::Error::RowNotFound)));
    }

    #[tokio::test]
    async fn a_query_without_an_answer_ends_at_the_limit() {
        let silent = std::future::pending::<sqlx::Result<u8>>();
        let error = within(Duration::from_millis(5), silent).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "error communicating with database: no answer within 5ms"
        );
    }
}
