//! A running service, and the order in which it shuts down.
//!
//! Invariant: nothing accepted is lost, and no row stays claimed by a process that has ended. Readiness turns false, and no new
//! job and no new request but a probe starts; requests and jobs under way end, side by side; then the intake and the minter
//! finish what they have begun; jobs that are still claimed are handed back; the resolver runs until the last step. Whatever does
//! not end within the limit is left in the database, where another process or the next start finds it. The last traces are exported if
//! their collector accepts them at once. One line at the end reports what was finished, handed back and left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

use super::base::Tasks;
use super::http::Http;
use super::minting::Minting;
use super::open_chain::FailedCheck;
use super::start_error::ServiceEnded;
use crate::api::DrainReport;
use crate::ledger;
use crate::queue::ProcessRegistration;
use crate::readings::Intake;
use crate::telemetry::traces::Traces;

/// A running service. Dropping it without [`shutdown`](Self::shutdown) leaves its tasks running.
pub struct RunningService {
    pub(super) mint: Pubkey,
    pub(super) failed_check: FailedCheck,
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

    /// Waits until the service cannot continue, and returns why: a check that was skipped at a start without the chain has failed,
    /// or a part ended without being stopped, which is a defect.
    pub async fn wait(&self) -> ServiceEnded {
        let jobs = async {
            match &self.minting {
                Some(minting) => minting.jobs.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failed = self.failed_check.wait() => ServiceEnded::CheckFailed(failed.to_string()),
            () = self.http.server.wait() => ServiceEnded::ByItself,
            () = jobs => ServiceEnded::ByItself,
        }
    }

    /// Ends everything in order, within `SHUTDOWN_TIMEOUT_SECS`, and [`LAST_STEPS_TOGETHER`] after it when the database
    /// does not answer. True when everything that was begun was finished.
    pub async fn shutdown(self) -> bool {
        let started = Instant::now();
        let end = started + self.limit + LAST_STEPS_TOGETHER;
        let limit = self.limit - (self.limit / 5).min(LAST_STEPS);
        tracing::info!("draining: no new requests and no new jobs");
        self.tasks.stops.work.cancel();
        crate::failpoint!("drain.begun");
        let (callers, jobs) = tokio::join!(self.drain_connections(limit), self.end_jobs(limit));
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
        // A connection that hangs must not delay the exit.
        let _ = tokio::time::timeout(last_step(end), self.pool.close()).await;
        let complete = callers.connections_cut == 0 && jobs.ended && work_ended;
        tracing::info!(
            complete,
            requests_answered = callers.requests_answered,
            connections_closed = callers.connections_closed,
            connections_cut = callers.connections_cut,
            jobs_finished = jobs.finished,
            // Absent when the database did not answer.
            jobs_handed_back,
            transactions_left,
            took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "drained"
        );
        complete
    }

    /// Nothing reaches the intake afterwards.
    async fn drain_connections(&self, limit: Duration) -> DrainReport {
        let report = self.http.drain.drain(limit).await;
        if let Some(intake) = &self.intake {
            intake.close();
        }
        report
    }

    /// Nothing reaches the minter afterwards.
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

    /// Hands back the jobs that this process still holds, and returns their number. `None`: the database did not answer, and
    /// other processes hand them back as soon as this one's lock is free.
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

    /// Mint transactions that are neither final nor dead. The resolver of another process or of the next start continues with
    /// them.
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

/// Limit of a step that only stops tasks.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// Limit of the last export of traces.
const TRACES_LIMIT: Duration = Duration::from_secs(2);
/// All steps behind the limit end within this time after it, whatever does not answer: orchestrators are configured to kill 15 s
/// after the limit, and a busy machine needs some of those.
const LAST_STEPS_TOGETHER: Duration = Duration::from_secs(10);
/// A step that finds the time used up still has this long, because most have nothing left to do.
const LEAST_WAIT: Duration = Duration::from_millis(200);

/// How long one of the last steps may take now.
fn last_step(end: Instant) -> Duration {
    let left = end.saturating_duration_since(Instant::now());
    left.clamp(LEAST_WAIT, LAST_STEPS)
}

async fn ended_within(limit: Duration, tasks: &TaskTracker) -> bool {
    tasks.close();
    tokio::time::timeout(limit, tasks.wait()).await.is_ok()
}
