//! `GET /health/live` and `GET /health/ready`.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sqlx::{FromRow, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::operations::Operations;
use crate::schema;
use crate::telemetry::{Health, Readiness};

/// Probes of load balancers expect an answer within seconds, and an answer after two is worth no more than none.
const PROBE_LIMIT: Duration = Duration::from_millis(1_800);

/// Many probes in a second ask the database once.
const PROBE_AGE_MAX: Duration = Duration::from_secs(1);

const DATABASE: &str = "database";
const MIGRATIONS: &str = "migrations";
const QUEUE: &str = "queue";

/// SQLSTATE of a lock that was not free in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

pub fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Operations: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// Whether the process runs.
///
/// Always 200 while it does. Says nothing about the database or the chain: restarting this process would not cure them.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operations",
    responses((status = 200, description = "The process runs", body = Object, example = json!({"status": "ok"})))
)]
async fn live() -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (headers, Json(json!({"status": "ok"}))).into_response()
}

/// Whether readings can be accepted.
///
/// 200 with `ok`, or with `degraded` when the chain, the ledger breaker or the workers need attention while readings are
/// accepted all the same; 503 with `unavailable` when readings cannot be accepted. Answers within two seconds.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operations",
    responses(
        (status = 200, description = "Readings can be accepted", body = Readiness, example = json!({
            "status": "ok",
            "checks": {
                "database": {"status": "ok", "since": "2026-11-25T04:00:00.000Z"},
                "chain": {"status": "ok", "since": "2026-11-25T04:00:00.000Z"},
            },
        })),
        (status = 503, description = "Readings cannot be accepted", body = Readiness, example = json!({
            "status": "unavailable",
            "checks": {
                "database": {
                    "status": "unavailable",
                    "reason": "no answer within 1.8 s",
                    "since": "2026-11-25T04:00:00.000Z",
                },
            },
        })),
    )
)]
async fn ready(State(state): State<Operations>) -> Response {
    // A draining process says so whatever the database does.
    if !state.health.is_draining() {
        let findings = state.database_probe.look(&state.pool).await;
        findings.report(&state.health);
    }
    let readiness = state.health.readiness();
    let status = match readiness.status {
        crate::telemetry::Status::Ok | crate::telemetry::Status::Degraded => StatusCode::OK,
        crate::telemetry::Status::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (status, headers, Json(readiness)).into_response()
}

/// What one look at the database found out; `None`: the look did not come that far.
#[derive(Clone, Debug, Default)]
struct Findings {
    database: Option<Found>,
    migrations: Option<Found>,
    queue: Option<Found>,
}

/// `Err`: why no reading can be accepted.
type Found = Result<(), String>;

impl Findings {
    fn no_answer() -> Findings {
        Findings {
            database: Some(Err(format!(
                "no answer within {} s",
                PROBE_LIMIT.as_secs_f64()
            ))),
            ..Findings::default()
        }
    }

    fn report(self, health: &Health) {
        for (part, found) in [
            (DATABASE, self.database),
            (MIGRATIONS, self.migrations),
            (QUEUE, self.queue),
        ] {
            match found {
                Some(Ok(())) => health.ok(part),
                Some(Err(reason)) => health.unavailable(part, reason),
                None => {}
            }
        }
    }
}

/// Asks the database whether a reading and its job could be stored now, at most once a second.
#[derive(Default)]
pub struct DatabaseProbe(Mutex<Option<(Instant, Findings)>>);

impl DatabaseProbe {
    async fn look(&self, pool: &PgPool) -> Findings {
        let limited = tokio::time::timeout(PROBE_LIMIT, self.look_or_recall(pool)).await;
        limited.unwrap_or_else(|_| Findings::no_answer())
    }

    /// Probes wait here for the one that asks: each waits within its own limit.
    async fn look_or_recall(&self, pool: &PgPool) -> Findings {
        let mut last = self.0.lock().await;
        if let Some((moment, findings)) = &*last
            && moment.elapsed() < PROBE_AGE_MAX
        {
            return findings.clone();
        }
        let findings = match tokio::time::timeout(PROBE_LIMIT, ask(pool)).await {
            Ok(findings) => findings,
            Err(_) => Findings::no_answer(),
        };
        *last = Some((Instant::now(), findings.clone()));
        findings
    }
}

async fn ask(pool: &PgPool) -> Findings {
    let mut findings = Findings::default();
    if let Err(error) = examine(pool, &mut findings).await {
        // The text may name hosts and users, which a public probe does not show.
        tracing::debug!(%error, "the database probe failed");
        let reason = "the database refuses or breaks off; the log says how";
        findings.database = Some(Err(reason.to_owned()));
    }
    findings
}

#[derive(FromRow)]
struct Standing {
    read_only: bool,
    takes_readings: bool,
    has_queue: bool,
    takes_jobs: bool,
    has_migrations: bool,
}

/// An error is the database's; what is wrong in it is among the findings.
async fn examine(pool: &PgPool, findings: &mut Findings) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
    let standing: Standing = sqlx::query_as(
        "SELECT current_setting('transaction_read_only')::BOOLEAN AS read_only,
                COALESCE(has_table_privilege(to_regclass('readings'), 'INSERT'), FALSE) AS takes_readings,
                to_regclass('apalis.jobs') IS NOT NULL AS has_queue,
                COALESCE(has_table_privilege(to_regclass('apalis.jobs'), 'INSERT'), FALSE) AS takes_jobs,
                to_regclass('_sqlx_migrations') IS NOT NULL AS has_migrations",
    )
    .fetch_one(&mut *transaction)
    .await?;
    findings.database = Some(match (standing.read_only, standing.takes_readings) {
        (false, true) => Ok(()),
        (true, _) => Err("the database is read-only (a standby?)".to_owned()),
        (false, false) => {
            Err("the table readings is missing, or nothing may be inserted into it".to_owned())
        }
    });
    let missing = if standing.has_migrations {
        missing_migrations(&mut transaction).await?
    } else {
        schema::versions()
    };
    findings.migrations = Some(match missing.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "the database's schema is older than this program: {} migrations are missing, the first is {first}; \
             start this program anew, which runs them",
            missing.len()
        )),
    });
    findings.queue = Some(match (standing.has_queue, standing.takes_jobs) {
        (false, _) => Err("the queue's table apalis.jobs is missing".to_owned()),
        (true, false) => {
            Err("nothing may be inserted into the queue's table apalis.jobs".to_owned())
        }
        (true, true) if standing.read_only => return Ok(()),
        (true, true) => lock_queue(&mut transaction).await?,
    });
    transaction.rollback().await
}

async fn missing_migrations(transaction: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "SELECT version
         FROM UNNEST($1::BIGINT[]) AS expected (version)
         WHERE NOT EXISTS (
             SELECT FROM _sqlx_migrations AS run WHERE run.success AND run.version = expected.version
         )
         ORDER BY version",
    )
    .bind(schema::versions())
    .fetch_all(transaction)
    .await
}

/// As an insert would: whoever keeps the whole table locked keeps every reading out. Let go by the rollback.
async fn lock_queue(transaction: &mut PgConnection) -> sqlx::Result<Found> {
    sqlx::query("SELECT set_config('lock_timeout', '500ms', TRUE)")
        .execute(&mut *transaction)
        .await?;
    let locked = sqlx::query("LOCK TABLE apalis.jobs IN ROW EXCLUSIVE MODE")
        .execute(transaction)
        .await;
    match locked {
        Ok(_) => Ok(Ok(())),
        Err(error) => match error.as_database_error().and_then(|refusal| refusal.code()) {
            Some(code) if code == LOCK_NOT_AVAILABLE => Ok(Err(
                "somebody keeps the queue's table apalis.jobs locked".to_owned(),
            )),
            _ => Err(error),
        },
    }
}
