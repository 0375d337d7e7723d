//! One batch of readings, one transaction.
//!
//! Invariant: a reading is answered "accepted" only after the COMMIT that stored it was answered, and a failed batch
//! never costs a good reading. A rival that commits first makes the whole batch look again; one row that the database
//! refuses is found by halving; when the database is away everybody is told that nothing was stored, and when it went
//! away during COMMIT, that it is not known.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use chrono::Utc;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::admission::{Admission, ForMeter, NewReading};
use super::error::ReadingError;
use super::intake::Accepted;
use super::parsed::ParsedReading;
use super::rules::ReadingRules;
use super::store;
use crate::db::{ErrorClass, GuardedConnection};
use crate::domain::MeterSerial;
use crate::meters::{self, Caller, Meter};
use crate::outbox::{self, Event, EventFields, EventType, MintReading, NewJob, Topic};
use crate::telemetry::names::READINGS_PROCESSED;
use crate::telemetry::traces::{self, TraceContext};
use crate::telemetry::{Stage, observe_stage};

/// A claim and who makes it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) arrived: Instant,
    pub(super) caller: Caller,
    pub(super) claim: ParsedReading,
    /// Where its trace goes on, if it has one.
    pub(super) trace: Option<TraceContext>,
}

/// What the caller is told.
pub(super) type Answer = Result<Accepted, ReadingError>;

/// How long a statement waits for a rival's lock. Rivals are other batches of milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the database keeps the transaction of a process that stopped in the middle of it.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Times that a batch looks again after it lost a race. Each loss means that a rival committed, so this is plenty.
const RACES_MAX: u32 = 8;
/// Longest pause after the first lost race, and by how much each further one may be longer.
const RACE_PAUSE_STEP: Duration = Duration::from_millis(10);

/// Where batches are stored.
pub(super) struct BatchCommitter {
    pool: PgPool,
    rules: ReadingRules,
    begin: String,
    transaction_limit: Duration,
}

/// Why a transaction came to nothing.
#[derive(Debug)]
enum BatchError {
    /// A rival was faster, or the database untied a deadlock: try again.
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
        // Last in, first out, and later halves go in first: answers come in the order of requests, and among equals the
        // first still wins.
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
                Err(fault) => {
                    let refusal = refusal(&fault, part.len());
                    answers.extend(part.map(|_| Err(refusal())));
                }
            }
        }
        answers
    }

    /// Tries until it is stored, or lost too many races.
    async fn store(&self, batch: &[Request]) -> Result<Vec<Answer>, BatchError> {
        for races_lost in 1..=RACES_MAX {
            match self.attempt(batch).await {
                Err(BatchError::LostRace) => {
                    // Rivals that met once shall not meet again in step.
                    sleep((RACE_PAUSE_STEP * races_lost).mul_f64(rand::random())).await;
                }
                outcome => return outcome,
            }
        }
        Err(BatchError::LostRace)
    }

    async fn attempt(&self, batch: &[Request]) -> Result<Vec<Answer>, BatchError> {
        let mut connection = GuardedConnection::acquire(&self.pool)
            .await
            .map_err(classify)?;
        let outcome = self.transact(&mut connection, batch).await;
        // Where the database is away or the outcome is unknown, the session may be hung: it is closed.
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
        let (transaction, answers) = timeout(limit, self.fill(connection, batch))
            .await
            .map_err(|_| BatchError::Unavailable("the transaction took too long".to_owned()))??;
        crate::failpoint!(
            "intake.before_commit",
            BatchError::Unavailable("injected before COMMIT".to_owned())
        );
        timeout(limit, transaction.commit())
            .await
            .map_err(|_| BatchError::OutcomeUnknown("COMMIT took too long".to_owned()))?
            .map_err(classify_commit)?;
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
            .await
            .map_err(classify)?;
        let serials: Vec<&str> = batch
            .iter()
            .map(|request| request.claim.serial.as_str())
            .collect();
        let meters = meters::find_by_serials(&mut *transaction, &serials)
            .await
            .map_err(classify)?;
        let mut places = Vec::with_capacity(batch.len());
        let mut claims = Vec::with_capacity(batch.len());
        for request in batch {
            places.push(place(request, &meters).map(|for_meter| {
                claims.push(for_meter);
                claims.len() - 1
            }));
        }
        let stored = store::last_before_ends(&mut transaction, &claims)
            .await
            .map_err(classify)?;
        let mut admission = Admission::new(&self.rules, Utc::now());
        let mut verdicts: Vec<Option<Answer>> = claims
            .into_iter()
            .zip(&stored)
            .map(|(for_meter, stored)| Some(admission.decide(for_meter, stored.as_ref())))
            .collect();
        let answers: Vec<Answer> = places
            .into_iter()
            .map(|place| verdicts[place?].take().ok_or(ReadingError::NotStored)?)
            .collect();
        traces::store_contexts(&mut transaction, &traced(batch, &answers))
            .await
            .map_err(classify)?;
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
        if !store::insert(transaction, readings)
            .await
            .map_err(classify)?
        {
            return Err(BatchError::LostRace);
        }
        let events: Vec<Event> = readings.iter().map(received).collect();
        let jobs: Vec<NewJob> = readings
            .iter()
            .map(|reading| MintReading::now(reading.id))
            .collect();
        let written = async {
            outbox::publish(transaction, &events).await?;
            outbox::enqueue(transaction, &jobs).await?;
            outbox::notify(transaction, Topic::OutboxAndJobs).await
        };
        written.await.map_err(classify)
    }
}

/// Finds the meter that the request is about, if its caller may report for it.
fn place<'a>(
    request: &'a Request,
    meters: &'a HashMap<MeterSerial, Meter>,
) -> Result<ForMeter<'a>, ReadingError> {
    let claim = &request.claim;
    let meter = meters
        .get(&claim.serial)
        .filter(|meter| request.caller.may_see(&meter.owner))
        .ok_or_else(|| ReadingError::UnknownMeter {
            serial: claim.serial.clone(),
        })?;
    Ok(ForMeter {
        claim,
        meter,
        interval: claim.interval_for(meter)?,
    })
}

/// The new readings whose traces go on.
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

/// Counts what was stored. A reading is queued by the transaction that stores it.
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
        reading.claim.kwh,
    );
    Event::new(EventType::MeterReadingReceived, &fields)
}

/// Logs, once for all of them, why readings were not stored, and gives what each caller is told.
fn refusal(fault: &BatchError, readings: usize) -> fn() -> ReadingError {
    match fault {
        BatchError::LostRace => {
            tracing::warn!(readings, "readings were not stored: they lost every race");
            || ReadingError::Unavailable
        }
        BatchError::Unavailable(reason) => {
            tracing::warn!(
                readings,
                reason,
                "readings were not stored: the database is away"
            );
            || ReadingError::Unavailable
        }
        BatchError::OutcomeUnknown(reason) => {
            tracing::warn!(
                readings,
                reason,
                "the answer to COMMIT was lost: callers are told to send their readings again"
            );
            || ReadingError::OutcomeUnknown
        }
        BatchError::BadRow(error) | BatchError::SchemaMismatch(error) => {
            tracing::error!(readings, %error, "readings were not stored: the database refuses them");
            || ReadingError::NotStored
        }
    }
}

/// What an error before COMMIT means: nothing is stored.
fn classify(error: sqlx::Error) -> BatchError {
    match ErrorClass::of(&error) {
        ErrorClass::Retryable => BatchError::LostRace,
        ErrorClass::Unavailable => BatchError::Unavailable(error.to_string()),
        ErrorClass::SchemaMismatch => BatchError::SchemaMismatch(error),
        ErrorClass::BadRow => BatchError::BadRow(error),
    }
}

/// At COMMIT only an answer that says "rolled back" is one.
fn classify_commit(error: sqlx::Error) -> BatchError {
    match classify(error) {
        fault @ (BatchError::LostRace | BatchError::BadRow(_)) => fault,
        BatchError::Unavailable(reason) | BatchError::OutcomeUnknown(reason) => {
            BatchError::OutcomeUnknown(reason)
        }
        BatchError::SchemaMismatch(error) => BatchError::OutcomeUnknown(error.to_string()),
    }
}
