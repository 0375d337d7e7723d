//! The order in which a service ends.
//!
//! Invariant: nothing accepted is lost, and no row stays claimed by a process that is gone. Readiness turns false; no new
//! request but a probe and no new job is begun, and those under way end, side by side; then what Intake and Minter have
//! begun ends; jobs that are still claimed are handed back; the Resolver goes on to the last. Whatever does not end within
//! the limit is left in the database, where another process or the next start finds it. The last traces are handed over, if
//! their collector takes them at once. One line at the end says what was finished, handed back and left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

use super::base::Tasks;
use super::chain::Refusal;
use super::http::Http;
use super::minting::Minting;
use crate::api::DrainReport;
use crate::ledger;
use crate::queue::ProcessRegistration;
use crate::readings::Intake;
use crate::telemetry::traces::Traces;

/// A service that serves. Dropping it without [`shutdown`](Self::shutdown) leaves its tasks running.
pub struct RunningService {
    pub(super) mint: Pubkey,
    pub(super) refusal: Refusal,
    pub(super) limit: Duration,
    pub(super) tasks: Tasks,
    pub(super) http: Http,
    pub(super) process: ProcessRegistration,
    pub(super) minting: Option<Minting>,
    pub(super) intake: Option<Intake>,
    /// `None`: none are exported.
    pub(super) traces: Option<Traces>,
    pub(super) pool: PgPool,
}

impl RunningService {
    pub fn address(&self) -> SocketAddr {
        self.http.address
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.http.address)
    }

    /// Address of the feed.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.http.address)
    }

    pub fn mint_address(&self) -> Pubkey {
        self.mint
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Waits until it cannot go on, and tells why: what a start without the chain could not check is refused. That a part ends by
    /// itself is a defect.
    pub async fn wait(&self) -> String {
        let jobs = async {
            match &self.minting {
                Some(minting) => minting.jobs.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            refusal = self.refusal.wait() => refusal.clone(),
            () = self.http.server.wait() => ENDED_BY_ITSELF.to_owned(),
            () = jobs => ENDED_BY_ITSELF.to_owned(),
        }
    }

    /// Ends everything in order, within `SHUTDOWN_TIMEOUT_SECS`, and [`LAST_STEPS_TOGETHER`] after it when the database is
    /// silent. True when everything that was begun was finished.
    pub async fn shutdown(self) -> bool {
        let started = Instant::now();
        let end = started + self.limit + LAST_STEPS_TOGETHER;
        let limit = self.limit - (self.limit / 5).min(LAST_STEPS);
        tracing::info!("draining: no new requests and no new jobs");
        self.tasks.stops.work.cancel();
        crate::failpoint!("drain.begun");
        let (callers, jobs) = tokio::join!(self.let_callers_go(limit), self.end_jobs(limit));
        let left = limit.saturating_sub(started.elapsed()).max(LEAST_WAIT);
        let work_ended = ended_within(left, &self.tasks.work).await;
        crate::failpoint!("drain.work_ended");
        let jobs_handed_back = self.hand_back(last_step(end)).await;
        crate::failpoint!("drain.handed_back");
        let transactions_left = self.transactions_left(last_step(end)).await;
        self.tasks.stops.last.cancel();
        self.http.drain.close();
        let step = last_step(end);
        let _ = tokio::join!(
            ended_within(step, &self.tasks.background),
            ended_within(step, &self.http.server),
        );
        if let Some(traces) = self.traces {
            traces.end(TRACES_LIMIT.min(last_step(end))).await;
        }
        // A connection that hangs must not hold up the end.
        let _ = tokio::time::timeout(last_step(end), self.pool.close()).await;
        let complete = callers.connections_cut == 0 && jobs.ended && work_ended;
        tracing::info!(
            complete,
            requests_answered = callers.requests_answered,
            connections_closed = callers.connections_closed,
            connections_cut = callers.connections_cut,
            jobs_finished = jobs.finished,
            // Not told when the database did not answer.
            jobs_handed_back,
            transactions_left,
            took_ms = started.elapsed().as_millis() as u64,
            "drained"
        );
        complete
    }

    /// Nothing more reaches Intake afterwards.
    async fn let_callers_go(&self, limit: Duration) -> DrainReport {
        let report = self.http.drain.drain(limit).await;
        if let Some(intake) = &self.intake {
            intake.close();
        }
        report
    }

    /// Nothing more reaches the Minter afterwards.
    async fn end_jobs(&self, limit: Duration) -> JobsEnded {
        let Some(Minting {
            minter,
            jobs,
            finished,
        }) = &self.minting
        else {
            return JobsEnded {
                ended: true,
                finished: 0,
            };
        };
        let before = finished.count();
        let ended = ended_within(limit, jobs).await;
        if !ended {
            self.tasks.stops.cut.cancel();
            ended_within(LEAST_WAIT, jobs).await;
        }
        minter.close();
        JobsEnded {
            ended,
            finished: finished.count() - before,
        }
    }

    /// Jobs that this process still held. `None`: the database did not answer, and other processes hand them back as soon as
    /// this one's lock is free.
    async fn hand_back(&self, limit: Duration) -> Option<u64> {
        match tokio::time::timeout(limit, self.process.deregister(&self.pool)).await {
            Ok(Ok(jobs)) => Some(jobs),
            Ok(Err(error)) => {
                tracing::warn!(%error, "claimed jobs could not be handed back; other processes do it within seconds");
                None
            }
            Err(_) => {
                tracing::warn!(
                    "claimed jobs could not be handed back in time; other processes do it within seconds"
                );
                None
            }
        }
    }

    /// Sent or about to be, and not at their end: the Resolver of another process goes on with them, or of the next start.
    async fn transactions_left(&self, limit: Duration) -> Option<u64> {
        let counted = ledger::count_open_transactions(&self.pool);
        let counted = tokio::time::timeout(limit, counted).await;
        counted.ok()?.ok()
    }
}

struct JobsEnded {
    ended: bool,
    finished: u64,
}

const ENDED_BY_ITSELF: &str = "the service ended by itself; its log says why";

/// What is only stopped, not finished, ends within this.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// A collector that hangs holds up the end no longer.
const TRACES_LIMIT: Duration = Duration::from_secs(2);
/// All steps behind the limit end so long after it, whatever is silent: orchestrators are told to kill 15 s after the limit,
/// and a busy machine needs some of them.
const LAST_STEPS_TOGETHER: Duration = Duration::from_secs(10);
/// A step that finds the time used up is still given this, since most have nothing left to do.
const LEAST_WAIT: Duration = Duration::from_millis(200);

/// What a step of the last ones may take now.
fn last_step(end: Instant) -> Duration {
    let left = end.saturating_duration_since(Instant::now());
    left.clamp(LEAST_WAIT, LAST_STEPS)
}

async fn ended_within(limit: Duration, tasks: &TaskTracker) -> bool {
    tasks.close();
    tokio::time::timeout(limit, tasks.wait()).await.is_ok()
}
