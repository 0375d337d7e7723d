//! Follows the event feed into the tracker.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::reading_tracker::ReadingTracker;
use super::target::Target;
use crate::commands::follow::{Follow, FollowStep, follow};

/// How long the replay waits for the feed before it starts without: states are polled over REST anyway.
const FEED_LIMIT: Duration = Duration::from_secs(10);

/// Starts to follow the feed, and returns once it is live. Dropping the set ends it.
pub(super) async fn start_listening(
    target: &Target,
    tracker: &Arc<ReadingTracker>,
    progress: &Arc<Progress>,
) -> JoinSet<()> {
    let (live, is_live) = oneshot::channel();
    let mut live = Some(live);
    let (tokens, tracker, output) = (target.tokens.clone(), tracker.clone(), progress.clone());
    let feed = Follow {
        ws_url: target.ws_url.clone(),
        after: None,
    };
    let mut listener = JoinSet::new();
    listener.spawn(async move {
        let stop = CancellationToken::new();
        let followed = follow(feed, &tokens, &stop, |step| match step {
            FollowStep::Connected { .. } => {
                live.take().map(|live| live.send(()));
            }
            FollowStep::Event { message, .. } => {
                match (message.r#type.as_str(), message.reading_id) {
                    ("TokensMinted", Some(id)) => tracker.minted(id, message.happened_at()),
                    ("MintFinalized", Some(id)) => tracker.finalized(id),
                    // A failed mint may be retried: the poll finds its outcome.
                    _ => {}
                }
            }
            FollowStep::Disconnected { reason, .. } => output.line(&format!(
                "The event feed was cut off ({reason}); it continues where it was."
            )),
            FollowStep::Gap { .. } | FollowStep::Remark { .. } => {}
        });
        if let Err(error) = followed.await {
            output.line(&format!("{error}; polling the states instead."));
        }
    });
    if !matches!(timeout(FEED_LIMIT, is_live).await, Ok(Ok(()))) {
        progress.line("The event feed is not there yet; starting without it.");
    }
    listener
}
