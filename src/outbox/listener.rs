//! The listening connection: noticed and replaced when it ends, and when it is open and hears nothing.
//!
//! A connection whose other end is gone without a word (a pulled cable, a firewall that forgot it) or stands still looks
//! like a quiet one. So after [`QUIET_MAX`] without a notification one is sent over another connection: it must arrive.
//! All processes hear it, and it counts for all: however many they are, a quiet system sends one in that time.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::wake::{NOTIFY_CHANNEL, Wake};
use crate::telemetry::{Health, names};

/// A connection that has heard nothing for so long is tried.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// What was sent must be heard within this.
const HEARD_LIMIT: Duration = Duration::from_secs(5);
/// Connecting, and beginning to listen.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const RECONNECT_DELAY: Duration = Duration::from_millis(500);
/// Closing the connection in order, at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Payload of the notification that only tries the connection: no topic, so it wakes nobody.
const TRIAL: &str = "trial";
const HEALTH_PART: &str = "listener";

#[derive(Debug, Error)]
enum Broken {
    #[error("it ended")]
    Ended,
    #[error("it ended: {0}")]
    Database(#[from] sqlx::Error),
    #[error("it was not open within {CONNECT_LIMIT:?}")]
    NotOpened,
    #[error("it is open and heard nothing")]
    Deaf,
}

impl Wake {
    /// Listens until told to stop. A broken connection is opened again; whatever may have been missed meanwhile is
    /// covered by waking everyone once after each connect.
    pub async fn listen(self, pool: PgPool, health: Health, stop: CancellationToken) {
        loop {
            let own = pool_of_one(&pool);
            let broken = stop.run_until_cancelled(self.listen_once(&own, &pool, &health));
            let Some(Err(broken)) = broken.await else {
                let _ = timeout(CLOSE_LIMIT, own.close()).await;
                return;
            };
            let how = match broken {
                Broken::Deaf => "deaf",
                Broken::Ended | Broken::Database(_) | Broken::NotOpened => "ended",
            };
            metrics::counter!(names::LISTENER_BROKEN, "how" => how).increment(1);
            metrics::gauge!(names::LISTENER_CONNECTED).set(0.0);
            health.degraded(
                HEALTH_PART,
                "notifications of the database do not arrive; work is found by polling, later",
            );
            tracing::warn!(error = %broken, "the listening connection broke; opening another");
            // Never closed in order: a deaf one would not answer. The kernel ends it in time.
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
    ) -> Result<Infallible, Broken> {
        let listener = timeout(CONNECT_LIMIT, open(own))
            .await
            .map_err(|_| Broken::NotOpened)??;
        self.wake_all();
        metrics::gauge!(names::LISTENER_CONNECTED).set(1.0);
        health.ok(HEALTH_PART);
        let heard = watch::Sender::new(Instant::now());
        tokio::select! {
            broken = self.hear(listener, &heard) => broken,
            broken = try_when_quiet(pool, heard.subscribe()) => broken,
        }
    }

    async fn hear(
        &self,
        mut listener: PgListener,
        heard: &watch::Sender<Instant>,
    ) -> Result<Infallible, Broken> {
        while let Some(notification) = listener.try_recv().await? {
            heard.send_replace(Instant::now());
            self.wake(notification.payload());
        }
        Err(Broken::Ended)
    }
}

/// Apart from the service's pool: a deaf connection would keep its place there.
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

async fn try_when_quiet(
    pool: &PgPool,
    mut heard: watch::Receiver<Instant>,
) -> Result<Infallible, Broken> {
    loop {
        let quiet_at = *heard.borrow() + QUIET_MAX;
        if Instant::now() < quiet_at {
            sleep_until(quiet_at).await;
            continue;
        }
        let asked_at = Instant::now();
        let Ok(Ok(())) = timeout(HEARD_LIMIT, send_trial(pool)).await else {
            // The database does not answer, which tells nothing of this connection.
            sleep(HEARD_LIMIT).await;
            continue;
        };
        if timeout(HEARD_LIMIT, heard.wait_for(|at| *at >= asked_at))
            .await
            .is_err()
        {
            return Err(Broken::Deaf);
        }
    }
}

async fn send_trial(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_notify($1, $2)")
        .bind(NOTIFY_CHANNEL)
        .bind(TRIAL)
        .execute(pool)
        .await?;
    Ok(())
}
