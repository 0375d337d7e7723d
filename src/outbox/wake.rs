//! Wakes the tasks that wait for committed work, in all processes, by one NOTIFY per transaction.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::watch;

/// The only channel. Its payload names what has changed.
pub const NOTIFY_CHANNEL: &str = "gridtokenx";

/// The kind of change that a committed transaction has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Events in the outbox, for the sequencer.
    Outbox,
    /// Events in the outbox and jobs in the queue, for the sequencer and the workers.
    OutboxAndJobs,
    /// Numbered events, for the hubs.
    Feed,
    /// A setting of which each process keeps a copy: they read it again.
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

/// Notifies all processes when the caller's transaction commits.
pub async fn notify(transaction: &mut PgConnection, topic: Topic) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(NOTIFY_CHANNEL)
        .bind(topic.payload())
        .execute(transaction)
        .await?;
    Ok(())
}

/// The wake-ups of one kind, for one receiver. Work that is committed after a wake-up returned causes another, so a receiver that
/// queries for work after each misses none.
#[derive(Debug)]
pub struct WakeUps(watch::Receiver<u64>);

impl WakeUps {
    /// Waits for a wake-up that this receiver has not returned yet. None is lost when the call is cancelled.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The last `Wake` was dropped: this process stops.
            std::future::pending::<()>().await;
        }
    }
}

/// Wake-up counters of this process: each increases when work of its kind may exist. Every receiver polls as well, so a
/// connection that delivers no notifications only costs time.
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
    pub fn outbox(&self) -> WakeUps {
        WakeUps(self.outbox.subscribe())
    }

    pub fn jobs(&self) -> WakeUps {
        WakeUps(self.jobs.subscribe())
    }

    pub fn feed(&self) -> WakeUps {
        WakeUps(self.feed.subscribe())
    }

    pub fn settings(&self) -> WakeUps {
        WakeUps(self.settings.subscribe())
    }

    /// Wakes every receiver, because notifications may have been missed.
    pub(super) fn wake_all(&self) {
        for counter in [&self.outbox, &self.jobs, &self.feed, &self.settings] {
            counter.send_modify(|count| *count += 1);
        }
    }

    /// Wakes the receivers of the topics in a notification's payload.
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
