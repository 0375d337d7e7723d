//! Repeats a call that got no answer, and waits until a node shows what it already lists.

use std::time::Duration;

use crate::chain::error::ChainError;
use crate::domain::Backoff;

/// A call that gets no answer is tried at most this many times: a scan of many pages does not fail because of one lost packet.
const CALLS_MAX: u32 = 4;
const UNANSWERED_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(250), Duration::from_secs(1));
/// Number of times that a node is queried for what it does not show yet. With [`SHOWN_PAUSE`] between them it has three seconds:
/// a node may list a signature that long before it shows the transaction or its status.
const SHOWN_CALLS_MAX: u32 = 10;
const SHOWN_PAUSE: Duration = Duration::from_millis(300);

/// Repeats the call, after growing pauses, while there is no answer. An answer that is an error counts as an answer.
pub(super) async fn while_unanswered<T, Fut>(mut call: impl FnMut() -> Fut) -> Result<T, ChainError>
where
    Fut: Future<Output = Result<T, ChainError>>,
{
    for failure in 1..CALLS_MAX {
        match call().await {
            Err(ChainError::Unreachable { .. }) => {
                tokio::time::sleep(UNANSWERED_BACKOFF.exact_delay(failure)).await;
            }
            answer => return answer,
        }
    }
    call().await
}

/// Repeats the call until it returns something. `None`: the node still does not show it.
pub(super) async fn until_shown<T, Fut>(
    mut call: impl FnMut() -> Fut,
) -> Result<Option<T>, ChainError>
where
    Fut: Future<Output = Result<Option<T>, ChainError>>,
{
    for _ in 1..SHOWN_CALLS_MAX {
        if let Some(shown) = call().await? {
            return Ok(Some(shown));
        }
        tokio::time::sleep(SHOWN_PAUSE).await;
    }
    call().await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::chain::error_reason::{NoAnswer, UnusableAnswer};

    fn no_answer() -> ChainError {
        ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "getSlot",
            reason: NoAnswer::TimedOut,
        }
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_repeated_and_an_answer_is_not() {
        let calls = AtomicU32::new(0);
        let answer = while_unanswered(async || match calls.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(no_answer()),
            _ => Ok(7),
        })
        .await;
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(calls.load(Ordering::Relaxed), 3);

        let calls = AtomicU32::new(0);
        let answer = while_unanswered(async || -> Result<(), ChainError> {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(no_answer())
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(calls.load(Ordering::Relaxed), CALLS_MAX);

        let calls = AtomicU32::new(0);
        let answer = while_unanswered(async || -> Result<(), ChainError> {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(ChainError::Unusable {
                endpoint: "rpc-1".to_owned(),
                reason: UnusableAnswer::AccountData,
            })
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
