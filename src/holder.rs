//! Loops that every process offers to run and one process runs: the Resolver, the sequencer; and work that is done by one
//! process at a time: a sweep, an admin's batch.
//!
//! The holder is whoever has a session-level advisory lock, on a connection of its own. The server ends a session that is
//! idle for [`IDLE_LIMIT`], and the holder pings within [`PING_EVERY`]: a stopped or cut-off holder loses the lock without
//! its help, and knows of it (a ping that fails) no later than the server gives the lock away.
//!
//! Holding the lock never makes a write safe. A process that is stopped between a check and a write wakes up believing that
//! it holds it. Whoever writes compares and sets (the ledger), or locks a row first (the sequencer); the lock only keeps the
//! processes from doing the same work twice.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What has one holder; the value is the lock's second key, the same in every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum HolderLock {
    Resolver = 1,
    Sequencer = 2,
    /// Sends the canary's readings.
    Canary = 3,
    /// Runs one sweep at a time.
    Sweep = 11,
    /// Runs one trigger's batch at a time.
    Trigger = 12,
}

/// First key of all holders' locks; that of [`crate::queue`]'s processes is the number before it.
const LOCK_CLASS: i32 = 1_735_680_885;

/// The server ends a session that says nothing for so long.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// How often the holder shows that it is alive.
const PING_EVERY: Duration = Duration::from_secs(2);
/// With the pause before it, still below [`IDLE_LIMIT`]: the holder gives up before another can begin.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Pause of a contender between two tries, and after a broken connection; a random part is added, so that the processes
/// of a deployment do not ask in step.
const RETRY_EVERY: Duration = Duration::from_millis(400);
const RETRY_JITTER_MS: u64 = 200;
/// Opening a connection and asking once.
const CONTEND_LIMIT: Duration = Duration::from_secs(5);
/// Work that was told to end and has not by then is dropped where it waits: the lock may be another's from here on, and this
/// process offers again.
const END_LIMIT: Duration = IDLE_LIMIT;

/// Offers to run `work` whenever this process gets the lock, until `stop`. The token that `work` is given is cancelled
/// when the lock is lost or `stop` is; `work` then ends by itself. Work that ends early, or panics, is started again.
///
/// After `stop` the lock is released as soon as `work` has ended; another process takes over within a second.
pub async fn hold<W, Fut>(
    connect: PgConnectOptions,
    lock: HolderLock,
    stop: CancellationToken,
    work: W,
) where
    W: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let won = tokio::select! {
            () = stop.cancelled() => return,
            won = win(&connect, lock) => won,
        };
        match won {
            Ok(connection) => {
                tracing::info!(?lock, "this process holds the lock");
                work_while_held(connection, lock, &stop, &work).await;
            }
            Err(error) => tracing::warn!(?lock, %error, "contending for the lock failed"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(retry_pause()) => {}
        }
    }
}

/// Runs `work` once if this process gets the lock within `patience`; `None` when others have it all that time, or `stop`
/// comes first. As in [`hold`] the token that `work` is given is cancelled when the lock is lost or `stop` is.
pub async fn hold_once<W, Fut>(
    connect: &PgConnectOptions,
    lock: HolderLock,
    patience: Duration,
    stop: &CancellationToken,
    work: W,
) -> sqlx::Result<Option<Fut::Output>>
where
    W: FnOnce(CancellationToken) -> Fut,
    Fut: Future,
{
    let until = Instant::now() + patience;
    let mut connection = within(CONTEND_LIMIT, open(connect)).await?;
    while !ask(&mut connection, lock).await? {
        if Instant::now() >= until || stop.is_cancelled() {
            release(connection, lock).await;
            return Ok(None);
        }
        sleep(retry_pause()).await;
    }
    let held = stop.child_token();
    let ended = until_lost(&mut connection, lock, &held, work(held.clone())).await;
    release(connection, lock).await;
    ended.map(Some)
}

/// Asks on one connection until it has the lock.
async fn win(connect: &PgConnectOptions, lock: HolderLock) -> sqlx::Result<PgConnection> {
    let mut connection = within(CONTEND_LIMIT, open(connect)).await?;
    while !ask(&mut connection, lock).await? {
        sleep(retry_pause()).await;
    }
    Ok(connection)
}

async fn ask(connection: &mut PgConnection, lock: HolderLock) -> sqlx::Result<bool> {
    within(
        CONTEND_LIMIT,
        sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(lock as i32)
            .fetch_one(connection),
    )
    .await
}

async fn open(connect: &PgConnectOptions) -> sqlx::Result<PgConnection> {
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

async fn work_while_held<W, Fut>(
    mut connection: PgConnection,
    lock: HolderLock,
    stop: &CancellationToken,
    work: &W,
) where
    W: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let held = stop.child_token();
    let turn = AssertUnwindSafe(work(held.clone())).catch_unwind();
    let ended = until_lost(&mut connection, lock, &held, turn).await;
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!(
            ?lock,
            "the work under the lock panicked; it is started again"
        ),
        Err(error) => tracing::error!(?lock, %error, "the work under the lost lock was cut off"),
    }
    release(connection, lock).await;
}

/// Runs the turn to its end; it is told when the lock is lost, and dropped when it does not end then.
async fn until_lost<T>(
    connection: &mut PgConnection,
    lock: HolderLock,
    held: &CancellationToken,
    turn: impl Future<Output = T>,
) -> sqlx::Result<T> {
    tokio::pin!(turn);
    tokio::select! {
        ended = &mut turn => Ok(ended),
        error = lose(connection) => {
            tracing::warn!(?lock, %error, "this process lost the lock");
            held.cancel();
            // The connection stays open meanwhile: if the session lives after all, nobody begins before this work ended,
            // and for no longer than the idle limit.
            timeout(END_LIMIT, turn)
                .await
                .map_err(|_| no_answer(END_LIMIT))
        }
    }
}

/// Ends the session now, and the lock with it; a connection that is only dropped may be noticed late.
async fn release(connection: PgConnection, lock: HolderLock) {
    if let Ok(Err(error)) = timeout(PING_LIMIT, connection.close()).await {
        tracing::debug!(?lock, %error, "the lock's connection did not close cleanly");
    }
}

/// Pings until the session does not answer.
async fn lose(connection: &mut PgConnection) -> sqlx::Error {
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pings.tick().await;
        if let Err(error) = within(PING_LIMIT, connection.ping()).await {
            return error;
        }
    }
}

/// Waits for the database no longer than this. What was asked may be done all the same. A connection of the pool that was
/// waited for in vain does not go back to it: see `commands::serve`'s database.
pub(crate) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(no_answer(limit).into()))
}

/// What a wait that has ended at its limit is told as.
pub(crate) fn no_answer(limit: Duration) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("no answer within {limit:?}"),
    ))
}

fn retry_pause() -> Duration {
    RETRY_EVERY + Duration::from_millis(rand::random_range(0..=RETRY_JITTER_MS))
}
