//! The order in which a service ends.
//!
//! Invariant: nothing accepted is lost. First readiness turns false and requests end, so that Intake gets no more; then
//! the queue's handlers end, so that the Minter gets no more; then what Intake and Minter have begun ends; the Resolver
//! goes on to the last. Whatever does not end within the limit is left in the database, where the next start finds it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::mint::Minter;
use crate::readings::Intake;

/// One token for each step of the way down.
pub(super) struct Stops {
    pub requests: CancellationToken,
    pub work: CancellationToken,
    pub last: CancellationToken,
}

impl Stops {
    pub fn new() -> Stops {
        Stops {
            requests: CancellationToken::new(),
            work: CancellationToken::new(),
            last: CancellationToken::new(),
        }
    }
}

/// A service that serves. Dropping it without [`shutdown`](Self::shutdown) leaves its tasks running.
pub struct RunningService {
    pub(super) address: SocketAddr,
    pub(super) mint: Pubkey,
    pub(super) limit: Duration,
    pub(super) stops: Stops,
    pub(super) requests: TaskTracker,
    pub(super) jobs: TaskTracker,
    pub(super) intake: Intake,
    pub(super) minter: Minter,
    pub(super) work: TaskTracker,
    pub(super) background: TaskTracker,
    pub(super) pool: PgPool,
}

impl RunningService {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Address of the feed.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub fn mint_address(&self) -> Pubkey {
        self.mint
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Waits until it ends by itself, which is a defect.
    pub async fn wait(&self) {
        tokio::select! {
            () = self.requests.wait() => {}
            () = self.jobs.wait() => {}
        }
    }

    /// Ends everything in order, within `SHUTDOWN_TIMEOUT_SECS`. True when everything that was begun was finished.
    pub async fn shutdown(self) -> bool {
        let started = Instant::now();
        let left = || self.limit.saturating_sub(started.elapsed()).max(LEAST_WAIT);
        self.stops.requests.cancel();
        let requests_ended = ended_within(left(), &self.requests).await;
        self.stops.work.cancel();
        let jobs_ended = ended_within(left(), &self.jobs).await;
        self.intake.close();
        self.minter.close();
        let work_ended = ended_within(left(), &self.work).await;
        self.stops.last.cancel();
        let background_ended = ended_within(LAST_STEPS, &self.background).await;
        // A connection that hangs must not hold up the end.
        let _ = tokio::time::timeout(LAST_STEPS, self.pool.close()).await;
        tracing::info!(
            requests_ended,
            jobs_ended,
            work_ended,
            background_ended,
            took_ms = started.elapsed().as_millis() as u64,
            "drained"
        );
        requests_ended && jobs_ended && work_ended
    }
}

/// What is only stopped, not finished, ends within this.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// A step that finds the time used up is still given this, since most have nothing left to do.
const LEAST_WAIT: Duration = Duration::from_millis(200);

async fn ended_within(limit: Duration, tasks: &TaskTracker) -> bool {
    tasks.close();
    tokio::time::timeout(limit, tasks.wait()).await.is_ok()
}
