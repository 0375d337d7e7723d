//! A session-level advisory lock on a dedicated connection.
//!
//! Invariant: a process that holds the lock notices its loss no later than another process can acquire it. The server ends a
//! session that is idle for [`IDLE_LIMIT`]; the holder pings every [`PING_EVERY`] and gives up after [`PING_LIMIT`], which
//! together are shorter. So a process that is stopped or cut off loses the lock without doing anything.
//!
//! Holding the lock never makes a write safe: a process that is stopped between a check and a write resumes as if it
//! still held it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::timeout::within;

/// The server ends a session that is idle for this long.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How often the holder shows that it is alive.
const PING_EVERY: Duration = Duration::from_secs(2);
/// With the pause before it, still below [`IDLE_LIMIT`]: the holder gives up before another process can acquire the lock.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Opening a connection; one attempt to acquire.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts; a random part is added, so that the processes of a deployment do not try in step.
const RETRY_EVERY: Duration = Duration::from_millis(400);
const RETRY_JITTER_MS: u64 = 200;

/// The two keys of an advisory lock: which kind of lock, and which one of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvisoryKey {
    pub class: i32,
    pub object: i32,
}

/// A session that holds an advisory lock, or tries to acquire it.
#[derive(Debug)]
pub struct LockSession {
    connection: PgConnection,
    key: AdvisoryKey,
}

impl LockSession {
    /// Tries on one connection until it has the lock.
    pub async fn acquire(
        connect: &PgConnectOptions,
        key: AdvisoryKey,
    ) -> sqlx::Result<LockSession> {
        let mut session = LockSession::open(connect, key).await?;
        while !session.try_acquire().await? {
            sleep(retry_pause()).await;
        }
        Ok(session)
    }

    /// Connects; the lock is not acquired yet.
    pub(super) async fn open(
        connect: &PgConnectOptions,
        key: AdvisoryKey,
    ) -> sqlx::Result<LockSession> {
        let connection = within(ACQUIRE_LIMIT, connect_with_idle_limit(connect)).await?;
        Ok(LockSession { connection, key })
    }

    /// Whether this session has the lock now.
    pub(super) async fn try_acquire(&mut self) -> sqlx::Result<bool> {
        within(
            ACQUIRE_LIMIT,
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
                .bind(self.key.class)
                .bind(self.key.object)
                .fetch_one(&mut self.connection),
        )
        .await
    }

    /// For statements that must run in the session that holds the lock.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Pings until the session does not answer, then returns why.
    pub async fn wait_until_lost(&mut self) -> sqlx::Error {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pings.tick().await;
            if let Err(error) = within(PING_LIMIT, self.connection.ping()).await {
                return error;
            }
        }
    }

    /// Ends the session now, and the lock with it; the server may be late to notice a connection that is only dropped.
    pub async fn release(self) {
        let key = self.key;
        if let Ok(Err(error)) = timeout(PING_LIMIT, self.connection.close()).await {
            tracing::debug!(?key, %error, "the connection of an advisory lock did not close cleanly");
        }
    }
}

async fn connect_with_idle_limit(connect: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = connect.connect().await?;
    let idle_limit_ms = IDLE_LIMIT.as_millis();
    connection
        .execute(sqlx::AssertSqlSafe(format!(
            "SET idle_session_timeout = {idle_limit_ms};
             SET idle_in_transaction_session_timeout = {idle_limit_ms}"
        )))
        .await?;
    Ok(connection)
}

/// How long to wait before the next attempt.
pub(super) fn retry_pause() -> Duration {
    RETRY_EVERY + Duration::from_millis(rand::random_range(0..=RETRY_JITTER_MS))
}
