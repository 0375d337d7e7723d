//! Keeps the connection that listens for notifications: replaced when it ends, and when it is open but delivers nothing.
//!
//! A connection whose other end disappeared silently (a pulled cable, a firewall that dropped its state) or is frozen looks the
//! same as a quiet one. So after [`QUIET_MAX`] without a notification, a probe is sent over another connection and must arrive.
//! Every process receives it, and it counts for each: a quiet system sends one probe in that time, however many processes it has.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::wake::{NOTIFY_CHANNEL, Wake};
use crate::telemetry::{Health, HealthPart, names};

/// A connection that received nothing for this long is probed.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// A probe must arrive within this time.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// Connecting and executing LISTEN.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// Closing the connection at shutdown.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Payload of a probe. It is not a topic, so it wakes no receiver.
const PROBE: &str = "trial";

/// The reason for which the connection is replaced.
#[derive(Debug, Error)]
enum ListenError {
    #[error("it ended")]
    Ended,
    #[error("it ended: {0}")]
    Database(#[from] sqlx::Error),
    #[error("it was not open within {CONNECT_LIMIT:?}")]
    NotOpened,
    #[error("it is open, but a probe did not arrive")]
    ProbeLost,
}

impl Wake {
    /// Listens until `stop`. A broken connection is replaced; every receiver is woken once after each connect, because
    /// notifications may have been missed in between.
    pub async fn listen(self, pool: PgPool, health: Health, stop: CancellationToken) {
        loop {
            let own = pool_of_one(&pool);
            let listening = stop.run_until_cancelled(self.listen_once(&own, &pool, &health));
            let Some(Err(error)) = listening.await else {
                let _ = timeout(CLOSE_LIMIT, own.close()).await;
                return;
            };
            let how = match error {
                ListenError::ProbeLost => "deaf",
                ListenError::Ended | ListenError::Database(_) | ListenError::NotOpened => "ended",
            };
            metrics::counter!(names::LISTENER_BROKEN, "how" => how).increment(1);
            metrics::gauge!(names::LISTENER_CONNECTED).set(0.0);
            health.degraded(
                HealthPart::Listener,
                "notifications of the database do not arrive; work is found by polling, which takes longer",
            );
            tracing::warn!(%error, "the listening connection broke; opening another");
            // Not closed: a frozen connection would not answer. The kernel ends it.
            drop(own);
            if stop
                .run_until_cancelled(sleep(RECONNECT_DELAY))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn listen_once(
        &self,
        own: &PgPool,
        pool: &PgPool,
        health: &Health,
    ) -> Result<Infallible, ListenError> {
        let listener = timeout(CONNECT_LIMIT, open(own))
            .await
            .map_err(|_| ListenError::NotOpened)??;
        self.wake_all();
        metrics::gauge!(names::LISTENER_CONNECTED).set(1.0);
        health.ok(HealthPart::Listener);
        let received = watch::Sender::new(Instant::now());
        tokio::select! {
            ended = self.receive(listener, &received) => ended,
            ended = probe_when_quiet(pool, received.subscribe()) => ended,
        }
    }

    async fn receive(
        &self,
        mut listener: PgListener,
        received: &watch::Sender<Instant>,
    ) -> Result<Infallible, ListenError> {
        while let Some(notification) = listener.try_recv().await? {
            received.send_replace(Instant::now());
            self.wake(notification.payload());
        }
        Err(ListenError::Ended)
    }
}

/// Outside the service's pool: a frozen connection would keep its place there.
fn pool_of_one(pool: &PgPool) -> PgPool {
    let options = pool.connect_options();
    let options = options
        .as_ref()
        .clone()
        .application_name("gridtokenx listener");
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_LIMIT)
        .connect_lazy_with(options)
}

async fn open(own: &PgPool) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(own).await?;
    listener.listen(NOTIFY_CHANNEL).await?;
    Ok(listener)
}

async fn probe_when_quiet(
    pool: &PgPool,
    mut received: watch::Receiver<Instant>,
) -> Result<Infallible, ListenError> {
    loop {
        let quiet_at = *received.borrow() + QUIET_MAX;
        if Instant::now() < quiet_at {
            sleep_until(quiet_at).await;
            continue;
        }
        let sent_at = Instant::now();
        let Ok(Ok(())) = timeout(PROBE_LIMIT, send_probe(pool)).await else {
            // The database does not answer, which shows nothing about the listening connection.
            sleep(PROBE_LIMIT).await;
            continue;
        };
        if timeout(PROBE_LIMIT, received.wait_for(|at| *at >= sent_at))
            .await
            .is_err()
        {
            return Err(ListenError::ProbeLost);
        }
    }
}

async fn send_probe(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(NOTIFY_CHANNEL)
        .bind(PROBE)
        .execute(pool)
        .await?;
    Ok(())
}
