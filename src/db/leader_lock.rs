//! Loops that every process offers to run and one process runs (the resolver, the sequencer), and work that one process does
//! at a time (a sweep, an admin's batch).
//!
//! Invariant: while a process is the leader it holds the session-level advisory lock of [`LeaderLock`], and it stops within
//! [`STOP_LIMIT`] of losing it. [`LockSession`] keeps the first half. The second half is kept by dropping work that ignores its
//! cancelled token.
//!
//! The lock only keeps the processes from doing the same work twice; it makes no write safe. A leader that is stopped between a
//! check and a write resumes as if it still led. So every write has its own guard: the ledger compares and
//! sets, the sequencer locks a row first.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::lock_session::{AdvisoryKey, IDLE_LIMIT, LockSession, retry_pause};
use super::timeout::timed_out;

/// Work that one process leads at a time; the value is the lock's second key, the same in every release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderLock {
    Resolver,
    Sequencer,
    /// Sends the canary's readings.
    Canary,
    /// Runs one sweep at a time.
    Sweep,
    /// Runs one trigger's batch at a time.
    Trigger,
}

/// First key of all leader locks. The number before it is that of the locks that mark a process alive
/// (`queue::process_registration`).
const LOCK_CLASS: i32 = 1_735_680_885;

/// Work that does not end within this time after its token was cancelled is dropped at its next await: another process may
/// acquire the lock from then on, and this process competes for it again.
const STOP_LIMIT: Duration = IDLE_LIMIT;

impl LeaderLock {
    const fn key(self) -> AdvisoryKey {
        let object = match self {
            LeaderLock::Resolver => 1,
            LeaderLock::Sequencer => 2,
            LeaderLock::Canary => 3,
            LeaderLock::Sweep => 11,
            LeaderLock::Trigger => 12,
        };
        AdvisoryKey {
            class: LOCK_CLASS,
            object,
        }
    }
}

/// Runs `work` whenever this process acquires the lock, until `stop`. The token that `work` receives is cancelled when the lock
/// is lost or `stop` is cancelled; `work` must then return. Work that returns early, or panics, is started again.
///
/// After `stop` the lock is released as soon as `work` has returned; another process takes over within a second.
pub async fn run_as_leader<W, Fut>(
    connect: PgConnectOptions,
    lock: LeaderLock,
    stop: CancellationToken,
    work: W,
) where
    W: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    while !stop.is_cancelled() {
        let acquired = tokio::select! {
            () = stop.cancelled() => return,
            acquired = LockSession::acquire(&connect, lock.key()) => acquired,
        };
        match acquired {
            Ok(session) => {
                tracing::info!(?lock, "leader lock acquired");
                lead(session, lock, &stop, &work).await;
            }
            Err(error) => tracing::warn!(?lock, %error, "acquiring the leader lock failed"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(retry_pause()) => {}
        }
    }
}

/// Runs `work` once if this process acquires the lock within `patience`; returns `None` when other processes hold it all that
/// time, or when `stop` is cancelled first. As in [`run_as_leader`], the token that `work` receives is cancelled when the lock is lost or
/// `stop` is cancelled.
pub async fn run_exclusive<W, Fut>(
    connect: &PgConnectOptions,
    lock: LeaderLock,
    patience: Duration,
    stop: &CancellationToken,
    work: W,
) -> sqlx::Result<Option<Fut::Output>>
where
    W: FnOnce(CancellationToken) -> Fut,
    Fut: Future,
{
    let until = Instant::now() + patience;
    let mut session = LockSession::open(connect, lock.key()).await?;
    while !session.try_acquire().await? {
        if Instant::now() >= until || stop.is_cancelled() {
            session.release().await;
            return Ok(None);
        }
        sleep(retry_pause()).await;
    }
    let held = stop.child_token();
    let outcome = run_until_lost(&mut session, lock, &held, work(held.clone())).await;
    session.release().await;
    outcome.map(Some)
}

async fn lead<W, Fut>(
    mut session: LockSession,
    lock: LeaderLock,
    stop: &CancellationToken,
    work: &W,
) where
    W: Fn(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let held = stop.child_token();
    let run = AssertUnwindSafe(work(held.clone())).catch_unwind();
    match run_until_lost(&mut session, lock, &held, run).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!(
            ?lock,
            "the work under the leader lock panicked; it is started again"
        ),
        Err(error) => {
            tracing::error!(?lock, %error, "the work under the lost leader lock did not stop and was dropped");
        }
    }
    session.release().await;
}

/// Runs the work to its end. When the lock is lost it cancels `held`, and drops work that does not end within [`STOP_LIMIT`].
async fn run_until_lost<T>(
    session: &mut LockSession,
    lock: LeaderLock,
    held: &CancellationToken,
    work: impl Future<Output = T>,
) -> sqlx::Result<T> {
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => Ok(outcome),
        error = session.wait_until_lost() => {
            tracing::warn!(?lock, %error, "leader lock lost");
            held.cancel();
            // The connection stays open meanwhile: if the session is alive after all, no other process begins before this work
            // has ended, and for no longer than the idle limit.
            timeout(STOP_LIMIT, work)
                .await
                .map_err(|_| timed_out(STOP_LIMIT))
        }
    }
}
