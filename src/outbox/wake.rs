//! Wakes those who wait for committed work, in all processes, by one NOTIFY per transaction.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
    /// A setting changed: everyone who keeps a copy reads it again.
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

    /// Listens until told to stop. A broken connection is opened again; whatever may have been missed meanwhile is
    /// covered by waking everyone once after each connect.
    pub async fn listen(self, pool: PgPool, stop: CancellationToken) {
        const RECONNECT_DELAY: Duration = Duration::from_millis(500);
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.listen_once(&pool) => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "the listening connection broke; connecting again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RECONNECT_DELAY) => {}
            }
        }
    }

    async fn listen_once(&self, pool: &PgPool) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(NOTIFY_CHANNEL).await?;
        for counter in [&self.outbox, &self.jobs, &self.feed, &self.settings] {
            counter.send_modify(|count| *count += 1);
        }
        while let Some(notification) = listener.try_recv().await? {
            let payload = notification.payload();
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
        Ok(())
    }
}
