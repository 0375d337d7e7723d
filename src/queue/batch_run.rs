//! Runs a batch, a slice at a time.
//!
//! A run claims a page, hands it to the Minter, and claims the next while that one is under way, so that at most as many
//! readings wait in the Minter as fill its batches: memory does not grow with the backlog. What became of the readings is
//! read from their own state. A slice is short, since a job that runs for minutes keeps its worker's heartbeats waiting, and
//! a process that shuts down; where it ends a new job goes on, here or elsewhere. What a run that died has claimed is handed
//! in again by the next one, which the ledger bears.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::guarded::JobError;
use super::workers::QueueContext;
use crate::admin::batches::{
    self, Batch, BatchKind, ClaimSource, ClaimStep, Cursor, OpenRows, ReadingOutcome, SuccessAt,
};
use crate::mint::{MintOutcome, MintPermission};
use crate::outbox::{self, Job, Topic};

/// How long a slice claims, its wait for the lock included. With what is under way then ([`HAND_IN_LIMIT`]) it stays below
/// the limit of a job, which is a third of the time after which its worker is taken for dead.
pub(super) const SLICE: Duration = Duration::from_secs(30);
/// How long the Minter may take for one reading; then it is looked at again.
const HAND_IN_LIMIT: Duration = Duration::from_secs(20);
/// How long an admin's batch bears that nothing can be minted (chain, database or breaker do not let it) before it claims no
/// more and says why: enough to fail over to another endpoint. A sweep does not wait, since the next tick comes.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a batch waits for confirmations that do not come: longer than a transaction takes to expire (150 blocks) and to
/// be proven dead after it.
const STALLED_AFTER: Duration = Duration::from_secs(180);
/// How often confirmations are looked for, and, doubled up to the second, whether the Minter can mint again.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const OUTAGE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceEnd {
    /// The batch is ended.
    Ended,
    /// There is more to do. `idle`: how long it has not got any further, in a row.
    GoesOn { idle: Duration },
}

/// What sweeps and triggers do differently.
#[derive(Clone, Copy, Debug)]
struct Policy {
    permission: MintPermission,
    sources: &'static [ClaimSource],
    success_at: SuccessAt,
    outage_patience: Duration,
}

fn policy_of(batch: &Batch) -> Policy {
    match (batch.kind, batch.filter.include_failed) {
        (BatchKind::Sweep, _) => Policy {
            permission: MintPermission::WhenDue,
            sources: &[ClaimSource::Stragglers],
            success_at: SuccessAt::Submitted,
            outage_patience: Duration::ZERO,
        },
        (BatchKind::Trigger, include_failed) => Policy {
            permission: MintPermission::Now,
            sources: if include_failed {
                &[ClaimSource::Pending, ClaimSource::Failed]
            } else {
                &[ClaimSource::Pending]
            },
            success_at: SuccessAt::Confirmed,
            outage_patience: OUTAGE_PATIENCE,
        },
    }
}

/// Runs the batch until it is ended, or `until` has come, or `stop`: what was begun then is finished, no more is claimed.
pub(super) async fn run_slice(
    context: &QueueContext,
    batch: Batch,
    until: Instant,
    stop: CancellationToken,
) -> Result<SliceEnd, JobError> {
    let idle = Duration::from_millis(batch.idle_ms.unsigned_abs());
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

/// A batch that is not ended gets another job. Does nothing when another job has handed it on, or it is ended.
pub(super) async fn go_on(
    context: &QueueContext,
    batch: Uuid,
    slice: i32,
    idle: Option<Duration>,
    job: impl FnOnce(i32) -> Job,
) -> Result<(), JobError> {
    let mut transaction = context.pool.begin().await?;
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
    /// Since when it has not got any further.
    idle_since: Instant,
    settled_at: Instant,
}

/// What one pass over the unminted came to.
#[derive(Debug, Default)]
struct Pass {
    claimed: usize,
    /// It saw everything that there is to claim.
    through: bool,
    /// The batch was ended by somebody else.
    ended: bool,
    /// Nothing is wrong with the readings, but they could not be minted now.
    not_now: Option<String>,
}

impl Slice<'_> {
    async fn run(mut self) -> Result<SliceEnd, JobError> {
        let mut claims_left = self.batch.error.is_none();
        let mut outage_pause = LOOK_EVERY;
        loop {
            let pass = self.pass(claims_left).await?;
            if pass.ended {
                return Ok(SliceEnd::Ended);
            }
            self.settle().await?;
            if let Some(reason) = &pass.not_now
                && self.idle() >= self.policy.outage_patience
            {
                self.give_up(reason).await?;
            }
            self.close_what_is_given_up().await?;
            // Rows that somebody was changing were passed over: only a pass that finds nothing new is the last.
            claims_left &= self.batch.error.is_none() && !(pass.through && pass.claimed == 0);
            if !claims_left && self.finish().await? {
                return Ok(SliceEnd::Ended);
            }
            if self.must_end() {
                return Ok(SliceEnd::GoesOn { idle: self.idle() });
            }
            if pass.not_now.is_some() {
                outage_pause = (outage_pause * 2).min(OUTAGE_PAUSE_MAX);
                self.pause(outage_pause).await;
            } else if !claims_left {
                outage_pause = LOOK_EVERY;
                self.pause(LOOK_EVERY).await;
            }
        }
    }

    /// Hands in what is open and pending, and then, if `claims` are left, everything that can be claimed.
    async fn pass(&mut self, claims: bool) -> Result<Pass, JobError> {
        let mut pages = Pages::new(if claims { self.policy.sources } else { &[] });
        let mut under_way = FuturesUnordered::new();
        let mut not_now = None;
        loop {
            while under_way.len() < self.context.pages_at_once()
                && not_now.is_none()
                && !pages.is_empty()
                && !self.must_end()
            {
                let page = pages.next(self.context, &self.batch).await?;
                if !page.is_empty() {
                    under_way.push(hand_in(self.context, self.batch.id, self.policy, page));
                }
            }
            let Some(handed) = under_way.next().await else {
                break;
            };
            let handed = handed?;
            if handed.progressed {
                self.idle_since = Instant::now();
            }
            not_now = not_now.or(handed.not_now);
            if self.settled_at.elapsed() >= LOOK_EVERY {
                self.settle().await?;
            }
        }
        Ok(Pass {
            claimed: pages.claimed,
            through: pages.is_empty() && not_now.is_none(),
            ended: pages.ended,
            not_now,
        })
    }

    /// Writes down what became of readings.
    async fn settle(&mut self) -> Result<(), JobError> {
        let (pool, success_at) = (&self.context.pool, self.policy.success_at);
        while batches::close_settled(pool, self.batch.id, success_at).await? > 0 {
            self.idle_since = Instant::now();
        }
        self.settled_at = Instant::now();
        Ok(())
    }

    async fn give_up(&mut self, reason: &str) -> Result<(), JobError> {
        tracing::warn!(batch_id = %self.batch.id, reason, "the batch ends early");
        batches::stop_claiming(&self.context.pool, self.batch.id, reason).await?;
        self.batch.error.get_or_insert_with(|| reason.to_owned());
        Ok(())
    }

    /// Once it has given up, readings that were not submitted are not waited for.
    async fn close_what_is_given_up(&self) -> Result<(), JobError> {
        let Some(reason) = &self.batch.error else {
            return Ok(());
        };
        let pool = &self.context.pool;
        while batches::close_open(pool, self.batch.id, OpenRows::Pending, reason).await? > 0 {}
        Ok(())
    }

    /// Ends it when nothing is open, or when what is open does not get any further.
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
                "the batch is ended"
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

/// The pages of one pass.
struct Pages {
    /// What is open and pending comes first: behind this reading. `None` when that is through.
    open_after: Option<Uuid>,
    sources: VecDeque<(ClaimSource, Cursor)>,
    /// Entries that the next step looks at: the more, the longer none of them was meant.
    window: u16,
    claimed: usize,
    ended: bool,
}

/// Entries of the index that one step looks at, at least (and twice a page) and at most: a few milliseconds, or some tens
/// while it walks past readings that are held back or looked after by their jobs.
const WINDOW_MIN: u16 = 200;
const WINDOW_MAX: u16 = 5_000;

impl Pages {
    fn new(sources: &[ClaimSource]) -> Pages {
        Pages {
            open_after: Some(Uuid::nil()),
            sources: sources
                .iter()
                .map(|source| (*source, Cursor::default()))
                .collect(),
            window: WINDOW_MIN,
            claimed: 0,
            ended: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.open_after.is_none() && self.sources.is_empty()
    }

    /// The next page; an empty one where a step found nothing.
    async fn next(&mut self, context: &QueueContext, batch: &Batch) -> Result<Vec<Uuid>, JobError> {
        let page = context.sweep_batch_size;
        if let Some(after) = self.open_after {
            let open = batches::open_pending(&context.pool, batch.id, after, page).await?;
            self.open_after = open.last().copied();
            return Ok(open);
        }
        let Some((source, after)) = self.sources.front_mut() else {
            return Ok(Vec::new());
        };
        let step = ClaimStep {
            source: *source,
            after: *after,
            page,
            window: self.window.max(page.saturating_mul(2)),
        };
        let Some(claim) = batches::claim(&context.pool, batch, step).await? else {
            self.sources.clear();
            self.ended = true;
            return Ok(Vec::new());
        };
        match claim.next {
            Some(next) => *after = next,
            None => {
                self.sources.pop_front();
            }
        }
        self.window = if claim.readings.is_empty() {
            (2 * self.window).min(WINDOW_MAX)
        } else {
            WINDOW_MIN
        };
        self.claimed += claim.readings.len();
        Ok(claim.readings)
    }
}

/// What handing in a page came to.
struct Handed {
    progressed: bool,
    not_now: Option<String>,
}

async fn hand_in(
    context: &QueueContext,
    batch: Uuid,
    policy: Policy,
    page: Vec<Uuid>,
) -> Result<Handed, JobError> {
    crate::failpoint!("queue.batch_claimed");
    let outcomes = join_all(
        page.iter()
            .map(|reading| mint(context, *reading, policy.permission)),
    )
    .await;
    let mut handed = Handed {
        progressed: false,
        not_now: None,
    };
    let mut known = Vec::new();
    for (reading, outcome) in page.into_iter().zip(outcomes) {
        let failure = match outcome {
            // The reading's own state tells the rest.
            MintOutcome::Submitted | MintOutcome::Already(_) | MintOutcome::Failed => {
                handed.progressed = true;
                continue;
            }
            MintOutcome::NotNow(reason) => {
                handed.not_now = Some(reason);
                continue;
            }
            MintOutcome::RetryAt(_) => None,
            MintOutcome::Held => {
                Some("auto-mint was switched off, or rolled back, before it was minted".to_owned())
            }
            MintOutcome::NotDue(at) => Some(format!("its backoff is not over before {at}")),
            // Others can be paid: it waits for the fee payer alone.
            MintOutcome::AwaitsFunds(reason) => Some(reason),
            MintOutcome::Unknown => Some("there is no such reading".to_owned()),
        };
        known.push((reading, ReadingOutcome::Failure(failure)));
    }
    if batches::close(&context.pool, batch, &known).await? > 0 {
        handed.progressed = true;
    }
    crate::failpoint!("queue.batch_handed_in");
    Ok(handed)
}

/// A Minter that does not answer in time has not refused: the reading is looked at again.
async fn mint(context: &QueueContext, reading: Uuid, permission: MintPermission) -> MintOutcome {
    let minted = tokio::time::timeout(HAND_IN_LIMIT, context.minter.mint(reading, permission));
    minted.await.unwrap_or_else(|_| {
        MintOutcome::NotNow(format!(
            "the Minter did not answer within {} s",
            HAND_IN_LIMIT.as_secs()
        ))
    })
}
