//! Waiting for a condition, with a limit; never for a time.

use std::time::Duration;

use tokio::time::Instant;

/// Far above what any step takes on an idle machine, so that only a defect reaches it.
pub const LIMIT: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Polls until `poll` returns something; panics with `what` if it does not within [`LIMIT`].
pub async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(
            started.elapsed() < LIMIT,
            "did not happen within {LIMIT:?}: {what}"
        );
        tokio::time::sleep(POLL_EVERY).await;
    }
}
