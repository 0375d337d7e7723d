//! `GET /health/live` and `GET /health/ready`.

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, FromRow, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::operations::state::Operations;
use crate::db::{self, SqlCondition};
use crate::telemetry::{Health, Readiness};

/// Probes of load balancers expect an answer within seconds, and an answer after two is worth no more than none.
const PROBE_LIMIT: Duration = Duration::from_millis(1_800);

/// Many probes in a second ask the database once.
const PROBE_AGE_MAX: Duration = Duration::from_secs(1);

const DATABASE: &str = "database";
const MIGRATIONS: &str = "migrations";
const QUEUE: &str = "queue";

/// A table that every submission works on, as it does.
struct Table {
    name: &'static str,
    /// The part of the service that is unavailable without it.
    part: &'static str,
    privilege: &'static str,
    lock_mode: &'static str,
}

impl Table {
    const fn read(name: &'static str, part: &'static str) -> Table {
        Table {
            name,
            part,
            privilege: "SELECT",
            lock_mode: "ACCESS SHARE",
        }
    }

    const fn written(name: &'static str, part: &'static str) -> Table {
        Table {
            name,
            part,
            privilege: "INSERT",
            lock_mode: "ROW EXCLUSIVE",
        }
    }
}

const TABLES: [Table; 6] = [
    Table::read("meters", DATABASE),
    Table::written("readings", DATABASE),
    // By a trigger of readings.
    Table::written("reading_count_changes", DATABASE),
    Table::written("metered_intervals", DATABASE),
    Table::written("outbox", DATABASE),
    Table::written("apalis.jobs", QUEUE),
];

/// What the tables' locks are waited for, all together: a submission that waits for longer is no longer a fast one, and
/// the probe has more to ask within its own limit.
const LOCKS_LIMIT: Duration = Duration::from_millis(500);

/// A table that is tried when that is used up still says whether it is free: a moment's queue is no outage.
const LOCK_WAIT_MIN: Duration = Duration::from_millis(20);

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
/// 200 with `ok`, or with `degraded` when the chain, the ledger breaker, the workers or the keys of tokens need attention
/// while readings are accepted all the same; 503 with `unavailable` when readings cannot be accepted. Answers within two
/// seconds.
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

/// What one look at the database found out.
#[derive(Clone, Debug)]
struct Findings {
    database: Found,
    migrations: Found,
    queue: Found,
}

/// `Err`: why no reading can be accepted.
type Found = Result<(), String>;

impl Findings {
    /// Nothing but that the database tells nothing: what it told before is worth no more.
    fn untold(why: impl Into<String>) -> Findings {
        let unknown = || Err("not known: the database does not tell".to_owned());
        Findings {
            database: Err(why.into()),
            migrations: unknown(),
            queue: unknown(),
        }
    }

    fn no_answer() -> Findings {
        Findings::untold(format!("no answer within {} s", PROBE_LIMIT.as_secs_f64()))
    }

    fn report(self, health: &Health) {
        for (part, found) in [
            (DATABASE, self.database),
            (MIGRATIONS, self.migrations),
            (QUEUE, self.queue),
        ] {
            match found {
                Ok(()) => health.ok(part),
                Err(reason) => health.unavailable(part, reason),
            }
        }
    }
}

/// Asks the database whether a reading and its job could be stored now, at most once a second.
#[derive(Default)]
pub struct DatabaseProbe(Mutex<Looks>);

#[derive(Default)]
struct Looks {
    last: Option<(Instant, Findings)>,
    /// Whether the log has the error that the database answers with since it last told how it is.
    error_logged: bool,
}

impl DatabaseProbe {
    async fn look(&self, pool: &PgPool) -> Findings {
        let limited = tokio::time::timeout(PROBE_LIMIT, self.look_or_recall(pool)).await;
        limited.unwrap_or_else(|_| Findings::no_answer())
    }

    /// Probes wait here for the one that asks: each waits within its own limit.
    async fn look_or_recall(&self, pool: &PgPool) -> Findings {
        let mut looks = self.0.lock().await;
        if let Some((moment, findings)) = &looks.last
            && moment.elapsed() < PROBE_AGE_MAX
        {
            return findings.clone();
        }
        let findings = match tokio::time::timeout(PROBE_LIMIT, examine(pool)).await {
            Ok(Ok(findings)) => {
                looks.error_logged = false;
                findings
            }
            Ok(Err(error)) => looks.refused(&error),
            Err(_) => Findings::no_answer(),
        };
        looks.last = Some((Instant::now(), findings.clone()));
        findings
    }
}

impl Looks {
    /// The error's text may name hosts and users, which a public probe does not show: the log has it, once for an outage.
    fn refused(&mut self, error: &sqlx::Error) -> Findings {
        if self.error_logged {
            tracing::debug!(%error, "the database still refuses or breaks off");
        } else {
            tracing::warn!(%error, "the database refuses or breaks off: no reading is accepted");
        }
        self.error_logged = true;
        Findings::untold("the database refuses or breaks off; the log says how")
    }
}

#[derive(FromRow)]
struct Standing {
    read_only: bool,
    has_migrations: bool,
}

/// An error is the database's; what is wrong in it is among the findings.
async fn examine(pool: &PgPool) -> sqlx::Result<Findings> {
    let mut transaction = pool.begin().await?;
    let standing: Standing = sqlx::query_as(
        "SELECT current_setting('transaction_read_only')::BOOLEAN AS read_only,
                to_regclass('_sqlx_migrations') IS NOT NULL AS has_migrations",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let missing = if standing.has_migrations {
        missing_migrations(&mut transaction).await?
    } else {
        db::migration_versions()
    };
    let migrations = match missing.first() {
        None => Ok(()),
        Some(first) => Err(format!(
            "the database's schema is older than this program: {} migrations are missing, the first is {first}; \
             start this program anew, which runs them",
            missing.len()
        )),
    };
    let faults = if standing.read_only {
        let read_only = |part| Fault {
            part,
            sentence: "the database is read-only (a standby?)".to_owned(),
        };
        vec![read_only(DATABASE), read_only(QUEUE)]
    } else {
        table_faults(&mut transaction).await?
    };
    transaction.rollback().await?;
    Ok(Findings {
        database: verdict(DATABASE, &faults),
        migrations,
        queue: verdict(QUEUE, &faults),
    })
}

/// What keeps readings out, and the part that it belongs to.
struct Fault {
    part: &'static str,
    sentence: String,
}

fn verdict(part: &str, faults: &[Fault]) -> Found {
    let of_part = faults.iter().filter(|fault| fault.part == part);
    let sentences: Vec<&str> = of_part.map(|fault| fault.sentence.as_str()).collect();
    if sentences.is_empty() {
        Ok(())
    } else {
        Err(sentences.join("; "))
    }
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
    .bind(db::migration_versions())
    .fetch_all(transaction)
    .await
}

#[derive(FromRow)]
struct TableStanding {
    is_there: bool,
    is_granted: bool,
}

/// What is wrong with the tables of a submission.
async fn table_faults(transaction: &mut PgConnection) -> sqlx::Result<Vec<Fault>> {
    let standings: Vec<TableStanding> = sqlx::query_as(
        "SELECT to_regclass(name) IS NOT NULL AS is_there,
                COALESCE(has_table_privilege(to_regclass(name), privilege), FALSE) AS is_granted
         FROM UNNEST($1::TEXT[], $2::TEXT[]) WITH ORDINALITY AS needed (name, privilege, place)
         ORDER BY place",
    )
    .bind(TABLES.map(|table| table.name))
    .bind(TABLES.map(|table| table.privilege))
    .fetch_all(&mut *transaction)
    .await?;
    let free_until = Instant::now() + LOCKS_LIMIT;
    let mut faults = Vec::new();
    for (table, standing) in TABLES.iter().zip(standings) {
        let Table {
            name, privilege, ..
        } = table;
        let sentence = if !standing.is_there {
            format!("the table {name} is missing")
        } else if !standing.is_granted {
            format!("{privilege} on the table {name} is not granted to the user of DATABASE_URL")
        } else if !is_free(transaction, table, free_until).await? {
            format!("somebody keeps the table {name} locked")
        } else {
            continue;
        };
        faults.push(Fault {
            part: table.part,
            sentence,
        });
    }
    Ok(faults)
}

/// Whether a submission would get its lock: whoever keeps the whole table locked keeps every reading out.
async fn is_free(
    transaction: &mut PgConnection,
    table: &Table,
    free_until: Instant,
) -> sqlx::Result<bool> {
    let wait = free_until.saturating_duration_since(Instant::now());
    // Rolled back at once: nothing is kept locked while another table is waited for, so that this never closes a circle.
    let trial = format!(
        "SAVEPOINT trial;
         SET LOCAL lock_timeout = '{}ms';
         LOCK TABLE {} IN {} MODE;
         ROLLBACK TO SAVEPOINT trial",
        wait.max(LOCK_WAIT_MIN).as_millis(),
        table.name,
        table.lock_mode,
    );
    match transaction.execute(AssertSqlSafe(trial)).await {
        Ok(_) => Ok(true),
        Err(error) if SqlCondition::of(&error) == SqlCondition::LockTimeout => {
            transaction.execute("ROLLBACK TO SAVEPOINT trial").await?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
