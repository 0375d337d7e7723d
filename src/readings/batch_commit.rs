//! Stores one batch of readings in one transaction.
//!
//! Invariant: a reading is answered "accepted" only after the COMMIT that stored it was answered, and a failed batch never costs
//! a good reading. When a concurrent batch commits first, the whole batch is decided again. When the database refuses a row,
//! halving the batch finds it. When the database is unavailable, every caller gets the error that nothing was stored; when it
//! failed during COMMIT, that the outcome is not known.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use chrono::Utc;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::accepted::Accepted;
use super::admission::{Admission, ForMeter, NewReading};
use super::error::ReadingError;
use super::parsed::ParsedReading;
use super::readings_table;
use super::rules::ReadingRules;
use crate::db::{ErrorClass, GuardedConnection, within};
use crate::domain::{Backoff, Jitter, MeterSerial};
use crate::meters::{self, Caller, Meter};
use crate::outbox::{self, Event, EventFields, EventType, MintReading, NewJob, Topic};
use crate::telemetry::names::READINGS_PROCESSED;
use crate::telemetry::traces::{self, TraceContext};
use crate::telemetry::{Stage, observe_stage};

/// A parsed reading and the caller that submitted it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) arrived: Instant,
    pub(super) caller: Caller,
    pub(super) parsed: ParsedReading,
    /// The trace that minting it continues, if it is traced.
    pub(super) trace: Option<TraceContext>,
}

/// The answer to the caller of one submission.
pub(super) type Answer = Result<Accepted, ReadingError>;

/// How long a statement waits for the lock of a concurrent batch. Batches take milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// After this the database ends the transaction of a process that stopped in the middle of it.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of a batch that loses races. Each loss means that a concurrent batch committed, so 8 suffice.
const RACES_MAX: u32 = 8;
/// Between two attempts of a batch that loses races. The wide jitter keeps batches that met once from meeting again in step.
const RACE_BACKOFF: Backoff =
    Backoff::doubling(Duration::from_millis(10), Duration::from_millis(80))
        .with_jitter(Jitter::between(0, 100));

/// Commits batches to the database, two at a time (see [`Intake`](super::Intake)).
pub(super) struct BatchCommitter {
    pool: PgPool,
    rules: ReadingRules,
    begin: String,
    transaction_limit: Duration,
}

/// A transaction stored nothing, or may have.
#[derive(Debug)]
enum BatchError {
    /// A concurrent transaction was faster, or the database resolved a deadlock: try again.
    LostRace,
    /// The database refuses something in this batch.
    BadRow(sqlx::Error),
    /// The database cannot be reached, or cannot write.
    Unavailable(String),
    /// The schema is not what this program expects: no row is to blame.
    SchemaMismatch(sqlx::Error),
    /// The answer to COMMIT was lost.
    OutcomeUnknown(String),
}

impl BatchCommitter {
    pub(super) fn new(
        pool: PgPool,
        rules: ReadingRules,
        transaction_limit: Duration,
    ) -> BatchCommitter {
        let begin = format!(
            "BEGIN; \
             SET LOCAL statement_timeout = {}; \
             SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            transaction_limit.as_millis(),
            LOCK_TIMEOUT.min(transaction_limit).as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        );
        BatchCommitter {
            pool,
            rules,
            begin,
            transaction_limit,
        }
    }

    /// Answers each request at its own index.
    pub(super) async fn run(&self, batch: Vec<Request>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(batch.len());
        // A stack on which the later half goes first: answers come in the order of requests, and of equal readings the first
        // is stored.
        let mut parts: Vec<Range<usize>> = Vec::new();
        parts.push(0..batch.len());
        while let Some(part) = parts.pop() {
            match self.store(&batch[part.clone()]).await {
                Ok(stored) => answers.extend(stored),
                Err(BatchError::BadRow(_) | BatchError::LostRace) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
                Err(error) => {
                    let answer = log_and_answer(&error, part.len());
                    answers.extend(part.map(|_| Err(answer())));
                }
            }
        }
        answers
    }

    /// Tries again after each lost race, up to [`RACES_MAX`] times.
    async fn store(&self, batch: &[Request]) -> Result<Vec<Answer>, BatchError> {
        for races_lost in 1..=RACES_MAX {
            match self.attempt(batch).await {
                Err(BatchError::LostRace) => {
                    sleep(RACE_BACKOFF.delay(races_lost, rand::random())).await;
                }
                outcome => return outcome,
            }
        }
        Err(BatchError::LostRace)
    }

    async fn attempt(&self, batch: &[Request]) -> Result<Vec<Answer>, BatchError> {
        let mut connection = GuardedConnection::acquire(&self.pool).await?;
        let outcome = self.transact(&mut connection, batch).await;
        // Otherwise the session may be hung, and is closed.
        if !matches!(
            outcome,
            Err(BatchError::Unavailable(_) | BatchError::OutcomeUnknown(_))
        ) {
            connection.reuse();
        }
        let answers = outcome?;
        observe(batch, &answers);
        Ok(answers)
    }

    async fn transact(
        &self,
        connection: &mut PgConnection,
        batch: &[Request],
    ) -> Result<Vec<Answer>, BatchError> {
        let limit = self.transaction_limit;
        let (transaction, answers) = within(limit, self.fill(connection, batch)).await?;
        crate::failpoint!(
            "intake.before_commit",
            BatchError::Unavailable("injected before COMMIT".to_owned())
        );
        within(limit, transaction.commit())
            .await
            .map_err(of_commit)?;
        crate::failpoint!(
            "intake.committed",
            BatchError::OutcomeUnknown("injected after COMMIT".to_owned())
        );
        Ok(answers)
    }

    /// Everything but the COMMIT.
    async fn fill<'c>(
        &self,
        connection: &'c mut PgConnection,
        batch: &[Request],
    ) -> Result<(Transaction<'c, Postgres>, Vec<Answer>), BatchError> {
        let mut transaction = connection
            .begin_with(AssertSqlSafe(self.begin.clone()))
            .await?;
        let serials: Vec<&str> = batch
            .iter()
            .map(|request| request.parsed.serial.as_str())
            .collect();
        let meters = meters::find_by_serials(&mut *transaction, &serials).await?;
        let placed: Vec<Result<ForMeter<'_>, ReadingError>> = batch
            .iter()
            .map(|request| for_meter(request, &meters))
            .collect();
        let candidates: Vec<&ForMeter<'_>> = placed.iter().flatten().collect();
        let stored = readings_table::last_before_ends(&mut transaction, &candidates).await?;
        let mut admission = Admission::new(&self.rules, Utc::now());
        // One for each candidate, in their order.
        let mut stored = stored.iter();
        let answers: Vec<Answer> = placed
            .into_iter()
            .map(|for_meter| {
                let for_meter = for_meter?;
                let last_before_end = stored.next().and_then(Option::as_ref);
                admission.decide(for_meter, last_before_end)
            })
            .collect();
        traces::store_contexts(&mut transaction, &traced(batch, &answers)).await?;
        self.write(&mut transaction, &admission.into_new_readings())
            .await?;
        Ok((transaction, answers))
    }

    /// Readings, guards, events, jobs and one NOTIFY.
    async fn write(
        &self,
        transaction: &mut PgConnection,
        readings: &[NewReading<'_>],
    ) -> Result<(), BatchError> {
        if readings.is_empty() {
            return Ok(());
        }
        if !readings_table::insert(transaction, readings).await? {
            return Err(BatchError::LostRace);
        }
        let events: Vec<Event> = readings.iter().map(received).collect();
        let jobs: Vec<NewJob> = readings
            .iter()
            .map(|reading| MintReading::now(reading.id))
            .collect();
        outbox::publish(transaction, &events).await?;
        outbox::enqueue(transaction, &jobs).await?;
        outbox::notify(transaction, Topic::OutboxAndJobs).await?;
        Ok(())
    }
}

/// Finds the meter of the request, if its caller may report for it.
fn for_meter<'a>(
    request: &'a Request,
    meters: &'a HashMap<MeterSerial, Meter>,
) -> Result<ForMeter<'a>, ReadingError> {
    let parsed = &request.parsed;
    let meter = meters
        .get(&parsed.serial)
        .filter(|meter| request.caller.may_see(&meter.owner))
        .ok_or_else(|| ReadingError::UnknownMeter {
            serial: parsed.serial.clone(),
        })?;
    Ok(ForMeter {
        parsed,
        meter,
        interval: parsed.interval_for(meter)?,
    })
}

/// The new readings that are traced.
fn traced<'a>(batch: &'a [Request], answers: &[Answer]) -> Vec<(Uuid, &'a TraceContext)> {
    let requests = batch.iter().zip(answers);
    requests
        .filter_map(|(request, answer)| match answer {
            Ok(accepted) if !accepted.duplicate => {
                Some((accepted.reading_id, request.trace.as_ref()?))
            }
            _ => None,
        })
        .collect()
}

/// Counts the stored readings. The transaction that stores a reading also queues its job.
fn observe(batch: &[Request], answers: &[Answer]) {
    for (request, answer) in batch.iter().zip(answers) {
        if matches!(answer, Ok(accepted) if !accepted.duplicate) {
            metrics::counter!(READINGS_PROCESSED).increment(1);
            observe_stage(Stage::Stored, request.arrived.elapsed());
            observe_stage(Stage::Queued, request.arrived.elapsed());
        }
    }
}

fn received(reading: &NewReading<'_>) -> Event {
    let meter = reading.meter;
    let fields = EventFields::of_reading(
        reading.id,
        &meter.owner,
        &meter.serial,
        meter.wallet,
        reading.parsed.kwh,
    );
    Event::new(EventType::MeterReadingReceived, &fields)
}

/// Logs, once for all of them, why readings were not stored, and returns the answer to each caller.
fn log_and_answer(error: &BatchError, readings: usize) -> fn() -> ReadingError {
    match error {
        BatchError::LostRace => {
            tracing::warn!(readings, "readings were not stored: they lost every race");
            || ReadingError::Unavailable
        }
        BatchError::Unavailable(reason) => {
            tracing::warn!(
                readings,
                reason,
                "readings were not stored: the database is unavailable"
            );
            || ReadingError::Unavailable
        }
        BatchError::OutcomeUnknown(reason) => {
            tracing::warn!(
                readings,
                reason,
                "the answer to COMMIT was lost: callers are asked to send their readings again"
            );
            || ReadingError::OutcomeUnknown
        }
        BatchError::BadRow(error) | BatchError::SchemaMismatch(error) => {
            tracing::error!(readings, %error, "readings were not stored: the database refuses them");
            || ReadingError::NotStored
        }
    }
}

impl From<sqlx::Error> for BatchError {
    /// Of an error before COMMIT: nothing is stored.
    fn from(error: sqlx::Error) -> BatchError {
        match ErrorClass::of(&error) {
            ErrorClass::Retryable => BatchError::LostRace,
            ErrorClass::Unavailable => BatchError::Unavailable(error.to_string()),
            ErrorClass::SchemaMismatch => BatchError::SchemaMismatch(error),
            ErrorClass::BadRow => BatchError::BadRow(error),
        }
    }
}

/// At COMMIT, only an error that means "rolled back" shows that nothing is stored.
fn of_commit(error: sqlx::Error) -> BatchError {
    match BatchError::from(error) {
        error @ (BatchError::LostRace | BatchError::BadRow(_)) => error,
        BatchError::Unavailable(reason) | BatchError::OutcomeUnknown(reason) => {
            BatchError::OutcomeUnknown(reason)
        }
        BatchError::SchemaMismatch(error) => BatchError::OutcomeUnknown(error.to_string()),
    }
}
