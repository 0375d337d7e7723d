//! The figures of `GET /metrics` that are read from the database at each scrape.

use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::gauge;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::admin::{Backlog, Runway};
use crate::audit::RecordedAudit;
use crate::chain::FeeBudgetView;
use crate::feed::LogSize;
use crate::ledger::HistoryScanView;
use crate::telemetry::{metric_value, names};

/// A scrape waits no longer for the database; Prometheus gives up after ten seconds.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Any number of scrapes in a second query the database once.
const AGE_MAX: Duration = Duration::from_secs(1);

/// When the figures were last read from the database.
#[derive(Default)]
pub struct DatabaseFigures(Mutex<Option<Instant>>);

impl DatabaseFigures {
    /// Reads the figures and sets the gauges. When the database does not answer, the gauges keep their values and one more
    /// gauge marks them as stale.
    pub(super) async fn refresh(&self, pool: &PgPool, fee_budget: Option<FeeBudgetView>) {
        let mut last_read = self.0.lock().await;
        if last_read.is_some_and(|moment| moment.elapsed() < AGE_MAX) {
            return;
        }
        let mut answers = false;
        let reading = async {
            let audit = RecordedAudit::last(pool).await?;
            // The cheapest query is first: a database that answers it is up, even if the others take longer than a scrape may wait.
            answers = true;
            let backlog = Backlog::read(pool).await?;
            let runway = Runway::read(pool, fee_budget).await?;
            let log = LogSize::read(pool).await?;
            Ok::<_, sqlx::Error>((backlog, runway, log, audit))
        };
        let read = tokio::time::timeout(READ_LIMIT, reading).await;
        count(names::DATABASE_ANSWERS, i64::from(answers));
        *last_read = Some(Instant::now());
        match read {
            Ok(Ok((backlog, runway, log, audit))) => {
                show_backlog(&backlog, Utc::now());
                show_log(&log, Utc::now());
                show_runway(runway.as_ref());
                show_audit(audit.as_ref());
                gauge!(names::DATABASE_FIGURES_STALE).set(0.0);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the figures for /metrics could not be read");
                gauge!(names::DATABASE_FIGURES_STALE).set(1.0);
            }
            Err(_) => {
                tracing::warn!("the figures for /metrics could not be read in time");
                gauge!(names::DATABASE_FIGURES_STALE).set(1.0);
            }
        }
    }
}

/// The longest runway that is shown: there is money, and nothing or next to nothing is spent.
const RUNWAY_SECONDS_MAX: f64 = 365.0 * 86_400.0;

fn show_runway(runway: Option<&Runway>) {
    let seconds = match runway {
        // Zero would mean that the fee payer is empty.
        None => f64::NAN,
        Some(runway) => runway
            .hours
            .map_or(RUNWAY_SECONDS_MAX, |hours| hours * 3_600.0)
            .min(RUNWAY_SECONDS_MAX),
    };
    gauge!(names::FEE_PAYER_RUNWAY_SECONDS).set(seconds);
}

fn show_audit(audit: Option<&RecordedAudit>) {
    // Before the first audit the number of differences is unknown, which is not zero.
    let differences = audit.map_or(f64::NAN, |audit| metric_value(audit.differences));
    gauge!(names::AUDIT_DIFFERENCES).set(differences);
    let finished_at = audit.map_or(0, |audit| audit.finished_at.timestamp());
    count(names::AUDIT_FINISHED_TIMESTAMP_SECONDS, finished_at);
}

fn count(name: &'static str, count: i64) {
    gauge!(name).set(metric_value(count));
}

fn seconds_since(moment: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    moment.map_or(0.0, |moment| (now - moment).as_seconds_f64().max(0.0))
}

fn show_log(log: &LogSize, now: DateTime<Utc>) {
    count(names::FEED_OLDEST_SEQ, log.oldest_seq);
    count(names::FEED_PARTITIONS, log.partitions);
    gauge!(names::FEED_OLDEST_AGE_SECONDS).set(seconds_since(log.oldest_at, now));
}

fn show_backlog(backlog: &Backlog, now: DateTime<Utc>) {
    let age = |name: &'static str, since: Option<DateTime<Utc>>| {
        gauge!(name).set(seconds_since(since, now));
    };
    let (readings, waiting) = (&backlog.readings, &backlog.waiting);
    count(names::UNMINTED_READINGS, readings.unminted());
    count(names::HELD_READINGS, waiting.held);
    count(names::OVERDUE_READINGS, waiting.overdue);
    for (state, readings) in [
        ("pending", readings.pending),
        ("submitted", readings.submitted),
        ("failed", readings.failed),
        ("quarantined", readings.quarantined),
    ] {
        gauge!(names::READINGS_BY_STATE, "state" => state).set(metric_value(readings));
    }
    age(
        names::OLDEST_UNMINTED_AGE_SECONDS,
        waiting.oldest_waiting_at,
    );
    let queue = &backlog.queue;
    for (state, jobs) in [
        ("due", queue.due),
        ("scheduled", queue.scheduled),
        ("retrying", queue.retrying),
        ("running", queue.running),
        ("dead", queue.dead),
    ] {
        gauge!(names::QUEUE_JOBS, "state" => state).set(metric_value(jobs));
    }
    age(names::QUEUE_OLDEST_DUE_AGE_SECONDS, queue.oldest_due_at);
    age(
        names::QUEUE_OLDEST_RUNNING_AGE_SECONDS,
        queue.oldest_running_at,
    );
    let breaker_open = backlog
        .breaker
        .as_ref()
        .is_some_and(|breaker| breaker.is_open());
    count(names::LEDGER_BREAKER_OPEN, i64::from(breaker_open));
    count(names::LEDGER_MISMATCHES, backlog.mismatches);
    show_history(backlog.history.as_ref());
    let proofs = &backlog.proofs;
    count(names::UNPROVEN_TRANSACTIONS, proofs.unproven);
    age(names::OLDEST_UNPROVEN_AGE_SECONDS, proofs.oldest_expired_at);
    count(names::SCANNED_RUNS, proofs.runs);
    age(
        names::OUTBOX_OLDEST_AGE_SECONDS,
        backlog.oldest_outbox_event_at,
    );
    count(names::FEED_LAST_SEQ, backlog.feed_last_seq);
}

fn show_history(history: Option<&HistoryScanView>) {
    let age = history.map_or(f64::NAN, |history| history.age_secs);
    gauge!(names::HISTORY_SCAN_WATERMARK_AGE_SECONDS).set(age);
    let finished_at = history.and_then(|history| history.finished_at);
    count(
        names::HISTORY_SCAN_LAST_SUCCESS_TIMESTAMP_SECONDS,
        finished_at.map_or(0, |moment| moment.timestamp()),
    );
    let unreadable = history.map_or(0, |history| history.unreadable.get());
    gauge!(names::HISTORY_SCAN_UNREADABLE).set(metric_value(unreadable));
}
