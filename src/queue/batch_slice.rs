//! Runs one slice of a batch, for sweeps and for triggers.
//!
//! A slice claims a page of readings, hands it to the minter, and claims the next page while that one is under way, so that
//! at most as many readings wait in the minter as fill its batches: memory does not grow with the backlog. Outcomes are read
//! from the readings' own states. A slice is short, because a job that runs for minutes delays its worker's heartbeats and a
//! shutdown of its process; a new job continues with the next slice, here or in another process. After a
//! crash the next slice hands in again the readings that the crashed one had claimed; the ledger accepts each reading once.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claim_pages::ClaimPages;
use super::hand_in::hand_in;
use super::handler_context::QueueContext;
use super::run_limited::JobError;
use crate::admin::batches::{self, Batch, BatchKind, ClaimSource, OpenRows, SuccessAt};
use crate::db;
use crate::domain::{Backoff, Retries};
use crate::mint::{DeferReason, MintPermission};
use crate::outbox::{self, NewJob, Topic};

/// How long a slice claims, including its wait for the lock. Together with the pages under way then (`HAND_IN_LIMIT`) it stays
/// below the limit of a job, which is a third of the time after which apalis considers its worker dead.
pub(super) const SLICE: Duration = Duration::from_secs(30);
/// How long an admin's batch tolerates that nothing can be minted (because of chain, database or breaker) before it claims no
/// more and reports why: enough to fail over to another endpoint. A sweep does not wait, because the next tick comes.
const OUTAGE_LIMIT: Duration = Duration::from_secs(30);
/// How long a batch waits for confirmations that do not come: longer than a transaction takes to expire (150 blocks) and to
/// be proven dead afterwards.
const STALLED_AFTER: Duration = Duration::from_secs(180);
/// How often a batch polls for confirmations.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// How often a batch tries during an outage whether the minter can mint again. One batch runs at a time, so without jitter.
const OUTAGE_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(600), Duration::from_secs(5));

/// The end of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    /// The batch has ended.
    Ended,
    /// There is more to do. `idle`: how long the batch has made no progress.
    Continues { idle: Duration },
}

/// The differences between sweeps and triggers.
#[derive(Clone, Copy, Debug)]
struct Policy {
    permission: MintPermission,
    sources: &'static [ClaimSource],
    success_at: SuccessAt,
    outage_limit: Duration,
}

fn policy_of(batch: &Batch) -> Policy {
    match (batch.kind, batch.filter.include_failed) {
        (BatchKind::Sweep, _) => Policy {
            permission: MintPermission::WhenDue,
            sources: &[ClaimSource::Stragglers],
            success_at: SuccessAt::Submitted,
            outage_limit: Duration::ZERO,
        },
        (BatchKind::Trigger, include_failed) => Policy {
            permission: MintPermission::Now,
            sources: if include_failed {
                &[ClaimSource::Pending, ClaimSource::Failed]
            } else {
                &[ClaimSource::Pending]
            },
            success_at: SuccessAt::Confirmed,
            outage_limit: OUTAGE_LIMIT,
        },
    }
}

/// Runs the batch until it ends, until `until`, or until `stop`. Then no more readings are claimed, and those that were handed
/// in are finished.
pub(super) async fn run_slice(
    context: &QueueContext,
    batch: Batch,
    until: Instant,
    stop: CancellationToken,
) -> Result<SliceEnd, JobError> {
    let idle = Duration::from_millis(batch.idle_ms);
    let now = Instant::now();
    let slice = Slice {
        context,
        policy: policy_of(&batch),
        batch,
        until,
        stop,
        idle_since: now.checked_sub(idle).unwrap_or(now),
        settled_at: now,
    };
    slice.run().await
}

/// Enqueues the job of a batch's next slice. Does nothing when another job has done so, or the batch has ended.
pub(super) async fn enqueue_next_slice(
    context: &QueueContext,
    batch: Uuid,
    slice: i32,
    idle: Option<Duration>,
    job: impl FnOnce(i32) -> NewJob,
) -> Result<(), JobError> {
    let mut transaction = db::begin(&context.pool).await?;
    if let Some(next) = batches::start_next_slice(&mut transaction, batch, slice, idle).await? {
        outbox::enqueue(&mut transaction, &[job(next)]).await?;
        outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
        transaction.commit().await?;
    }
    Ok(())
}

struct Slice<'a> {
    context: &'a QueueContext,
    batch: Batch,
    policy: Policy,
    until: Instant,
    stop: CancellationToken,
    /// Since when it has made no progress.
    idle_since: Instant,
    settled_at: Instant,
}

/// The result of one pass over the unminted readings.
#[derive(Debug)]
struct Pass {
    claimed: usize,
    /// The pass reached the end of what can be claimed.
    complete: bool,
    /// Another process ended the batch.
    ended: bool,
    /// Nothing is wrong with the readings, but they cannot be minted now.
    outage: Option<DeferReason>,
}

impl Slice<'_> {
    async fn run(mut self) -> Result<SliceEnd, JobError> {
        let mut claims_left = self.batch.error.is_none();
        let mut retries = Retries::new(OUTAGE_BACKOFF);
        loop {
            let pass = self.pass(claims_left).await?;
            if pass.ended {
                return Ok(SliceEnd::Ended);
            }
            self.settle().await?;
            if let Some(reason) = &pass.outage
                && self.idle() >= self.policy.outage_limit
            {
                self.stop_claiming(&reason.to_string()).await?;
            }
            self.close_unsubmitted().await?;
            // A pass skips rows that are locked: only a pass that finds nothing new is the last.
            claims_left &= self.batch.error.is_none() && !(pass.complete && pass.claimed == 0);
            if !claims_left && self.finish().await? {
                return Ok(SliceEnd::Ended);
            }
            if self.must_end() {
                return Ok(SliceEnd::Continues { idle: self.idle() });
            }
            if pass.outage.is_some() {
                self.pause(retries.next_delay(rand::random())).await;
            } else if !claims_left {
                retries.reset();
                self.pause(POLL_EVERY).await;
            }
        }
    }

    /// Hands in the open, pending readings, and then, while `claims_left`, all readings that can be claimed.
    async fn pass(&mut self, claims_left: bool) -> Result<Pass, JobError> {
        let mut pages = ClaimPages::new(if claims_left {
            self.policy.sources
        } else {
            &[]
        });
        let permission = self.policy.permission;
        let mut under_way = FuturesUnordered::new();
        let mut outage = None;
        loop {
            while under_way.len() < self.context.pages_at_once()
                && outage.is_none()
                && !pages.is_empty()
                && !self.must_end()
            {
                let page = pages.next(self.context, &self.batch).await?;
                if !page.is_empty() {
                    under_way.push(hand_in(self.context, self.batch.id, permission, page));
                }
            }
            let Some(handed) = under_way.next().await else {
                break;
            };
            let handed = handed?;
            if handed.progressed {
                self.idle_since = Instant::now();
            }
            outage = outage.or(handed.outage);
            if self.settled_at.elapsed() >= POLL_EVERY {
                self.settle().await?;
            }
        }
        Ok(Pass {
            claimed: pages.claimed,
            complete: pages.is_empty() && outage.is_none(),
            ended: pages.ended,
            outage,
        })
    }

    /// Records the outcomes of readings.
    async fn settle(&mut self) -> Result<(), JobError> {
        let (pool, success_at) = (&self.context.pool, self.policy.success_at);
        while batches::close_settled(pool, self.batch.id, success_at).await? > 0 {
            self.idle_since = Instant::now();
        }
        self.settled_at = Instant::now();
        Ok(())
    }

    async fn stop_claiming(&mut self, reason: &str) -> Result<(), JobError> {
        tracing::warn!(batch_id = %self.batch.id, reason, "batch ended early");
        batches::stop_claiming(&self.context.pool, self.batch.id, reason).await?;
        self.batch.error.get_or_insert_with(|| reason.to_owned());
        Ok(())
    }

    /// A batch that has stopped claiming does not wait for readings that were not submitted.
    async fn close_unsubmitted(&self) -> Result<(), JobError> {
        let Some(reason) = &self.batch.error else {
            return Ok(());
        };
        let pool = &self.context.pool;
        while batches::close_open(pool, self.batch.id, OpenRows::Pending, reason).await? > 0 {}
        Ok(())
    }

    /// Ends the batch when no reading is open, or when the open ones make no progress.
    async fn finish(&self) -> Result<bool, JobError> {
        let pool = &self.context.pool;
        if self.idle() >= STALLED_AFTER {
            let reason = "it could not be submitted in time";
            while batches::close_open(pool, self.batch.id, OpenRows::All, reason).await? > 0 {}
        }
        let Some(figures) = batches::finish(pool, &self.batch).await? else {
            return Ok(false);
        };
        if figures.total > 0 || self.batch.kind == BatchKind::Trigger {
            tracing::info!(
                batch_id = %self.batch.id,
                kind = self.batch.kind.as_str(),
                total = figures.total,
                successful = figures.successful,
                failed = figures.failed,
                waiting = figures.waiting,
                "batch ended"
            );
        }
        Ok(true)
    }

    fn idle(&self) -> Duration {
        self.idle_since.elapsed()
    }

    fn must_end(&self) -> bool {
        Instant::now() >= self.until || self.stop.is_cancelled()
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }
}
