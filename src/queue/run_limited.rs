//! Limits a handler from the inside, because apalis' own time-out and panic layers leave the job `Running` indefinitely.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use thiserror::Error;

/// A job's run did not do its work.
#[derive(Debug, Error)]
pub(super) enum JobError {
    #[error("the job took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the job panicked")]
    Panicked,
    #[error("the job waits: {0}")]
    Deferred(String),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Runs the work within the limit; a panic becomes an error.
pub(super) async fn run_limited<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(JobError::Panicked),
        Err(_) => Err(JobError::TimedOut(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_that_hangs_or_panics_ends_with_an_error() {
        let limit = Duration::from_millis(20);
        let hung = run_limited::<()>(limit, std::future::pending()).await;
        assert!(matches!(hung, Err(JobError::TimedOut(_))));
        let panicked = run_limited::<()>(limit, async { panic!("a defect") }).await;
        assert!(matches!(panicked, Err(JobError::Panicked)));
    }
}
