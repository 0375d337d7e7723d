//! The door for readings: many callers, one transaction.

use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::admission::Stored;
use super::batch_commit::{Answer, BatchCommitter, Request};
use super::error::ReadingError;
use super::parsed::ParsedReading;
use super::rejection_events::RejectionEvents;
use super::rules::ReadingRules;
use super::submission::Submission;
use crate::coalesce::{CoalesceLimits, Coalescer};
use crate::config::{BlockchainConfig, IntakeConfig, TokenizationConfig};
use crate::domain::{BaseUnits, ReadingState};
use crate::meters::Caller;
use crate::telemetry::names::READINGS_RECEIVED;
use crate::telemetry::traces::{Span, attributes};

/// Transactions under way at the same time: while one waits for the disk the next one is filled. More only meet each
/// other's locks.
const CONCURRENT_BATCHES: usize = 2;
/// Batches that may wait; past them callers are told to come back. A few seconds of work, a few megabytes.
const BATCHES_WAITING_MAX: usize = 20;

/// A reading that is in the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub reading_id: Uuid,
    /// It was there before.
    pub duplicate: bool,
    pub state: ReadingState,
    pub base_units: BaseUnits,
}

impl Accepted {
    pub(super) fn of(stored: &Stored, duplicate: bool) -> Accepted {
        Accepted {
            reading_id: stored.id,
            duplicate,
            state: stored.state,
            base_units: stored.base_units,
        }
    }
}

/// Takes readings and stores them in batches. Clones share one queue.
#[derive(Clone)]
pub struct Intake {
    readings: Coalescer<Request, Answer>,
    refusals: RejectionEvents,
}

impl Intake {
    /// Opens the door; its tasks belong to `tracker`.
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
        let refusals = RejectionEvents::start(pool.clone(), tracker);
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
        Intake { readings, refusals }
    }

    /// Stores a reading, or finds it stored. A caller that goes away meanwhile changes nothing about it.
    pub async fn submit(
        &self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<Accepted, ReadingError> {
        metrics::counter!(READINGS_RECEIVED).increment(1);
        let answer = self.store(caller, &submission).await;
        if let Err(ReadingError::Invalid(invalid)) = &answer {
            self.refusals.report(caller, &submission, invalid).await;
        }
        answer
    }

    /// The same for many, each on its own: a bad one never costs a good one. What was no submission keeps its error.
    pub async fn submit_many(
        &self,
        caller: &Caller,
        submissions: Vec<Result<Submission, ReadingError>>,
    ) -> Vec<Result<Accepted, ReadingError>> {
        // In their order: among equals the first wins.
        join_all(
            submissions
                .into_iter()
                .map(async |submission| self.submit(caller, submission?).await),
        )
        .await
    }

    /// Takes no more. What was taken is still stored and answered.
    pub fn close(&self) {
        self.readings.close();
        self.refusals.close();
    }

    async fn store(
        &self,
        caller: &Caller,
        submission: &Submission,
    ) -> Result<Accepted, ReadingError> {
        let claim = ParsedReading::read(submission)?;
        let span = Span::of_submission();
        let request = Request {
            arrived: Instant::now(),
            caller: caller.clone(),
            claim,
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
