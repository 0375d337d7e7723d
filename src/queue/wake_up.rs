//! Decides when an idle worker polls for jobs.

use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::ext::poll_strategy::{PollSnapshot, PollStrategy};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Interval, MissedTickBehavior};

use crate::outbox::WakeUps;
use crate::periodic::RunCounter;

/// Polls when a commit enqueued jobs, and every `poll_every` for what sends no notification: retries that became due, jobs
/// handed back, notifications that were missed.
///
/// Both sources are drained until they are pending, so that each has registered its wake-up: a strategy that stops at the
/// first ready source misses the next wake-up. Each worker has its own, because clones would share state.
pub struct WakeUp {
    committed: BoxStream<'static, ()>,
    poll: Interval,
    polls: RunCounter,
}

impl WakeUp {
    /// Each poll by time counts as a run of the task "queue poll".
    pub fn new(committed: WakeUps, poll_every: Duration, polls: RunCounter) -> WakeUp {
        let committed = stream::unfold(committed, |mut wake_ups| async move {
            wake_ups.next().await;
            Some(((), wake_ups))
        })
        .boxed();
        let mut poll = tokio::time::interval(poll_every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        WakeUp {
            committed,
            poll,
            polls,
        }
    }
}

impl PollStrategy for WakeUp {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        while let Poll::Ready(Some(())) = self.committed.poll_next_unpin(cx) {}
        while self.poll.poll_tick(cx).is_ready() {
            self.polls.count();
        }
        Poll::Pending
    }
}
