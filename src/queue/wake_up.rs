//! When an idle worker polls for jobs.

use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// Polls when a commit enqueued jobs, and every `poll_every` for what sends no notification: retries that became due, jobs
/// handed back, notifications that were missed.
///
/// Both sources are drained until they are pending, so that each has registered its wake-up: a strategy that stops at the
/// first ready source misses the next wake-up. Each worker has its own, because clones would share state.
pub struct WakeUp {
    committed: BoxStream<'static, ()>,
    poll: Interval,
}

impl WakeUp {
    pub fn new(committed: watch::Receiver<u64>, poll_every: Duration) -> WakeUp {
        let committed = stream::unfold(committed, |mut receiver| async move {
            receiver.changed().await.ok()?;
            Some(((), receiver))
        })
        .boxed();
        let mut poll = tokio::time::interval(poll_every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        WakeUp { committed, poll }
    }
}

impl PollStrategy for WakeUp {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        while let Poll::Ready(Some(())) = self.committed.poll_next_unpin(cx) {}
        while self.poll.poll_tick(cx).is_ready() {}
        Poll::Pending
    }
}
