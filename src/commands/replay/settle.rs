//! Waits until every accepted reading is final.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::api_client::ApiClient;
use super::progress::Progress;
use super::reading_tracker::{Counts, ReadingTracker};
use super::replay_error::ReplayError;
use super::target::{STALL_LIMIT, Target};
use crate::domain::{Backoff, Retries};

/// How long no event may arrive before the states are polled. Finality takes 6 s on the local chain, in which events of other readings
/// keep arriving, or none does. One client polls, so without jitter.
const POLL_BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(5), Duration::from_secs(30));
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// Counts that have not changed for a while, and what is due because of that.
struct UnchangedCounts {
    counts: Counts,
    since: Instant,
    polls: Retries,
    next_poll: Instant,
    is_stall_reported: bool,
}

impl UnchangedCounts {
    fn from_now(counts: Counts) -> UnchangedCounts {
        let now = Instant::now();
        let mut polls = Retries::new(POLL_BACKOFF);
        UnchangedCounts {
            counts,
            since: now,
            next_poll: now + polls.next_delay(0.0),
            polls,
            is_stall_reported: false,
        }
    }
}

/// Ends when no accepted reading is open. Events do most of it; when they pause, the states are polled. `meter`: the only
/// meter, if there is one.
pub(super) async fn settle(
    meter: Option<&str>,
    target: &Target,
    tracker: &ReadingTracker,
    progress: &Progress,
) -> Result<(), ReplayError> {
    let stall_limit = target.give_up_after.unwrap_or(STALL_LIMIT);
    let mut unchanged = UnchangedCounts::from_now(tracker.counts());
    loop {
        let counts = tracker.counts();
        if counts.open() == 0 {
            return Ok(());
        }
        if counts != unchanged.counts {
            unchanged = UnchangedCounts::from_now(counts);
        }
        let unchanged_for = unchanged.since.elapsed();
        if unchanged_for >= stall_limit && !unchanged.is_stall_reported {
            let stalled = ReplayError::Stalled {
                open: counts.open(),
                accepted: counts.accepted,
                limit: unchanged_for,
            };
            if target.give_up_after.is_some() {
                return Err(stalled);
            }
            progress.line(&stalled.to_string());
            unchanged.is_stall_reported = true;
        }
        if Instant::now() >= unchanged.next_poll {
            poll_states(meter, &target.api, tracker).await?;
            unchanged.next_poll = Instant::now() + unchanged.polls.next_delay(0.0);
        }
        sleep(CHECK_EVERY).await;
    }
}

/// Queries the state of every reading, so that a missed event, a gap in the feed or a fork loses nothing.
async fn poll_states(
    meter: Option<&str>,
    api: &ApiClient,
    tracker: &ReadingTracker,
) -> Result<(), ReplayError> {
    let mut after = None;
    loop {
        let page = api.readings(meter, after.as_deref()).await?;
        for reading in &page.readings {
            tracker.polled(reading.reading_id, reading.state);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
