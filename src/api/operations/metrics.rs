//! `GET /metrics`, and the figures in it that are read from the database at each scrape.

use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use metrics::gauge;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::{Backlog, Runway};
use crate::api::operations::state::{Operations, Parts};
use crate::audit::RecordedAudit;
use crate::feed::LogSize;
use crate::telemetry::{self, names};

/// A scrape never waits longer for the database; Prometheus gives up after ten seconds.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Two scrapers, or an impatient one, cost the database one reading a second.
const AGE_MAX: Duration = Duration::from_secs(1);

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new().routes(routes!(scrape))
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"))
)]
async fn scrape(State(state): State<Operations>) -> Response {
    state.figures.refresh(&state).await;
    telemetry::update_process_metrics();
    show_pool(&state.pool);
    (
        [(header::CONTENT_TYPE, TEXT_FORMAT)],
        state.metrics.render(),
    )
        .into_response()
}

fn show_pool(pool: &PgPool) {
    let (open, idle) = (pool.size(), pool.num_idle());
    let in_use = f64::from(open) - idle as f64;
    for (state, connections) in [
        // Both are read one after the other while others come and go.
        ("in_use", in_use.max(0.0)),
        ("idle", idle as f64),
        ("limit", f64::from(pool.options().get_max_connections())),
    ] {
        gauge!(names::DATABASE_CONNECTIONS, "state" => state).set(connections);
    }
}

/// When the figures from the database were last asked for.
#[derive(Default)]
pub struct Figures(Mutex<Option<Instant>>);

impl Figures {
    /// Reads the figures and sets the gauges. When the database does not answer, the gauges keep what they showed and
    /// one more says so.
    async fn refresh(&self, state: &Parts) {
        let mut asked = self.0.lock().await;
        if asked.is_some_and(|moment| moment.elapsed() < AGE_MAX) {
            return;
        }
        let mut answers = false;
        let reading = async {
            let audit = RecordedAudit::last(&state.pool).await?;
            // The cheapest came first: what takes longer than a scrape may wait is no outage.
            answers = true;
            let backlog = Backlog::read(&state.pool).await?;
            let runway = Runway::read(&state.pool, state.fee_budget.view()).await?;
            let log = LogSize::read(&state.pool).await?;
            Ok::<_, sqlx::Error>((backlog, runway, log, audit))
        };
        let read = tokio::time::timeout(READ_LIMIT, reading).await;
        count(names::DATABASE_ANSWERS, i64::from(answers));
        *asked = Some(Instant::now());
        match read {
            Ok(Ok((backlog, runway, log, audit))) => {
                show(&backlog, Utc::now());
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

/// What lasts longer is shown as this: there is money and nothing is spent, or next to nothing.
const RUNWAY_SECONDS_MAX: f64 = 365.0 * 86_400.0;

fn show_runway(runway: Option<&Runway>) {
    let seconds = match runway {
        // Zero would say that it is empty.
        None => f64::NAN,
        Some(runway) => runway
            .hours
            .map_or(RUNWAY_SECONDS_MAX, |hours| hours * 3_600.0)
            .min(RUNWAY_SECONDS_MAX),
    };
    gauge!(names::FEE_PAYER_RUNWAY_SECONDS).set(seconds);
}

fn show_audit(audit: Option<&RecordedAudit>) {
    // Without a verdict there are no differences to speak of, and none is not "no differences".
    let differences = audit.map_or(f64::NAN, |audit| audit.differences as f64);
    gauge!(names::AUDIT_DIFFERENCES).set(differences);
    let finished_at = audit.map_or(0, |audit| audit.finished_at.timestamp());
    count(names::AUDIT_FINISHED_TIMESTAMP_SECONDS, finished_at);
}

/// Counts are far below 2^53, so they are exact as floats; amounts of money are never shown here.
fn count(name: &'static str, count: i64) {
    gauge!(name).set(count as f64);
}

fn seconds_since(moment: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    moment.map_or(0.0, |moment| (now - moment).as_seconds_f64().max(0.0))
}

fn show_log(log: &LogSize, now: DateTime<Utc>) {
    count(names::FEED_OLDEST_SEQ, log.oldest_seq);
    count(names::FEED_PARTITIONS, log.partitions);
    gauge!(names::FEED_OLDEST_AGE_SECONDS).set(seconds_since(log.oldest_at, now));
}

fn show(backlog: &Backlog, now: DateTime<Utc>) {
    let age = |name: &'static str, since: Option<DateTime<Utc>>| {
        gauge!(name).set(seconds_since(since, now));
    };
    let (readings, waiting) = (&backlog.readings, &backlog.waiting);
    count(names::UNMINTED_READINGS, readings.unminted());
    count(names::HELD_READINGS, waiting.held);
    count(names::OVERDUE_READINGS, waiting.overdue);
    for (state, those) in [
        ("pending", readings.pending),
        ("submitted", readings.submitted),
        ("failed", readings.failed),
        ("quarantined", readings.quarantined),
    ] {
        gauge!(names::READINGS_BY_STATE, "state" => state).set(those as f64);
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
        gauge!(names::QUEUE_JOBS, "state" => state).set(jobs as f64);
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
    age(
        names::OUTBOX_OLDEST_AGE_SECONDS,
        backlog.oldest_outbox_event_at,
    );
    count(names::FEED_LAST_SEQ, backlog.feed_last_seq);
}
