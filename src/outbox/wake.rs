//! Wakes those who wait for committed work, in all processes, by one NOTIFY per transaction.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::watch;

/// The one channel. Its payload says what to look at.
pub const NOTIFY_CHANNEL: &str = "gridtokenx";

/// What a committed transaction left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Events in the outbox: the sequencer looks.
    Outbox,
    /// Events in the outbox and jobs in the queue: sequencer and workers look.
    OutboxAndJobs,
    /// Numbered events: the hubs look.
    Feed,
    /// A setting changed that processes keep a copy of: they read it again.
    Settings,
}

impl Topic {
    fn payload(self) -> &'static str {
        match self {
            Topic::Outbox => "outbox",
            Topic::OutboxAndJobs => "outbox+jobs",
            Topic::Feed => "feed",
            Topic::Settings => "settings",
        }
    }
}

/// Tells the waiting, once the caller's transaction commits.
pub async fn notify(transaction: &mut PgConnection, topic: Topic) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(NOTIFY_CHANNEL)
        .bind(topic.payload())
        .execute(transaction)
        .await?;
    Ok(())
}

/// Wake-up counters of this process: each rises when its kind of work may be there. A receiver that marks its value as
/// seen *before* it looks for work misses nothing. Everyone polls as well, so a deaf connection only costs time.
#[derive(Clone, Debug)]
pub struct Wake {
    outbox: Arc<watch::Sender<u64>>,
    jobs: Arc<watch::Sender<u64>>,
    feed: Arc<watch::Sender<u64>>,
    settings: Arc<watch::Sender<u64>>,
}

impl Default for Wake {
    fn default() -> Wake {
        let counter = || Arc::new(watch::Sender::new(0));
        Wake {
            outbox: counter(),
            jobs: counter(),
            feed: counter(),
            settings: counter(),
        }
    }
}

impl Wake {
    pub fn outbox(&self) -> watch::Receiver<u64> {
        self.outbox.subscribe()
    }

    pub fn jobs(&self) -> watch::Receiver<u64> {
        self.jobs.subscribe()
    }

    pub fn feed(&self) -> watch::Receiver<u64> {
        self.feed.subscribe()
    }

    pub fn settings(&self) -> watch::Receiver<u64> {
        self.settings.subscribe()
    }

    /// Wakes everyone: something may have been missed.
    pub(super) fn wake_all(&self) {
        for counter in [&self.outbox, &self.jobs, &self.feed, &self.settings] {
            counter.send_modify(|count| *count += 1);
        }
    }

    /// Wakes those whom the payload of a notification names.
    pub(super) fn wake(&self, payload: &str) {
        for (topic, counter) in [
            ("outbox", &self.outbox),
            ("jobs", &self.jobs),
            ("feed", &self.feed),
            ("settings", &self.settings),
        ] {
            if payload.split('+').any(|word| word == topic) {
                counter.send_modify(|count| *count += 1);
            }
        }
    }
}
