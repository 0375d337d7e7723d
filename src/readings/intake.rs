//! Takes submissions from all callers and stores them in batches: group commit.

use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::accepted::Accepted;
use super::batch_commit::{Answer, BatchCommitter, Request};
use super::error::ReadingError;
use super::parsed::ParsedReading;
use super::rejection_events::RejectionEvents;
use super::rules::ReadingRules;
use super::submission::Submission;
use crate::coalesce::{CoalesceLimits, Coalescer};
use crate::config::{BlockchainConfig, IntakeConfig, TokenizationConfig};
use crate::meters::Caller;
use crate::telemetry::names::READINGS_RECEIVED;
use crate::telemetry::traces::{Span, attributes};

/// Transactions under way at the same time: while one waits for the disk, the next one is filled. More would only wait for each
/// other's locks.
const CONCURRENT_BATCHES: usize = 2;
/// Batches that may wait; past them callers get [`ReadingError::Busy`]. A few seconds of work, a few megabytes.
const BATCHES_WAITING_MAX: usize = 20;

/// Takes readings and stores them in batches. Clones share one queue.
#[derive(Clone)]
pub struct Intake {
    readings: Coalescer<Request, Answer>,
    rejections: RejectionEvents,
}

impl Intake {
    /// Starts taking submissions. Its tasks run on `tracker`.
    pub fn start(
        pool: PgPool,
        intake: &IntakeConfig,
        tokenization: &TokenizationConfig,
        blockchain: &BlockchainConfig,
        tracker: &TaskTracker,
    ) -> Intake {
        let max_items = usize::from(intake.batch_size);
        let limits = CoalesceLimits {
            max_items,
            linger: intake.linger,
            queue: max_items * BATCHES_WAITING_MAX,
            concurrency: CONCURRENT_BATCHES,
        };
        let rejections = RejectionEvents::start(pool.clone(), tracker);
        let rules = ReadingRules::new(tokenization, blockchain);
        let committer = Arc::new(BatchCommitter::new(
            pool,
            rules,
            tokenization.transaction_timeout,
        ));
        let readings = Coalescer::start("intake", limits, tracker, move |batch| {
            let committer = Arc::clone(&committer);
            async move { committer.run(batch).await }
        });
        Intake {
            readings,
            rejections,
        }
    }

    /// Stores a reading, or finds it stored. Dropping this future does not stop the reading from being stored.
    pub async fn submit(
        &self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<Accepted, ReadingError> {
        metrics::counter!(READINGS_RECEIVED).increment(1);
        let answer = self.store(caller, &submission).await;
        if let Err(ReadingError::Invalid(invalid)) = &answer {
            self.rejections.publish(caller, &submission, invalid).await;
        }
        answer
    }

    /// The same for many, each on its own: a bad one never affects a good one. An item that was not a submission keeps its error.
    pub async fn submit_many(
        &self,
        caller: &Caller,
        submissions: Vec<Result<Submission, ReadingError>>,
    ) -> Vec<Result<Accepted, ReadingError>> {
        // In their order: of equal readings the first is stored.
        join_all(
            submissions
                .into_iter()
                .map(async |submission| self.submit(caller, submission?).await),
        )
        .await
    }

    /// Refuses further submissions. Those that were taken are still stored and answered.
    pub fn close(&self) {
        self.readings.close();
        self.rejections.close();
    }

    async fn store(
        &self,
        caller: &Caller,
        submission: &Submission,
    ) -> Result<Accepted, ReadingError> {
        let parsed = ParsedReading::parse(submission)?;
        let span = Span::of_submission();
        let request = Request {
            arrived: Instant::now(),
            caller: caller.clone(),
            parsed,
            trace: span.context(),
        };
        let answer = self.readings.call(request).await?;
        span.set(attributes::OUTCOME, outcome_of(&answer));
        if let Ok(accepted) = &answer {
            span.set(attributes::READING_ID, accepted.reading_id.to_string());
        }
        answer
    }
}

fn outcome_of(answer: &Answer) -> &'static str {
    match answer {
        Ok(accepted) if accepted.duplicate => "duplicate",
        Ok(_) => "stored",
        Err(_) => "not stored",
    }
}
