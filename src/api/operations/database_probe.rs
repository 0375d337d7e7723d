//! Probes whether the database could store a reading and its job now.

use std::time::Duration;

use sqlx::{FromRow, PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::submission_tables::{Part, TableProblem, table_problems};
use crate::db;
use crate::telemetry::{Health, HealthPart};

/// Probes of load balancers expect an answer within seconds, and an answer after two is worth no more than none.
const PROBE_LIMIT: Duration = Duration::from_millis(1_800);

/// Any number of probes in a second query the database once.
const PROBE_AGE_MAX: Duration = Duration::from_secs(1);

/// The reason for which no reading can be accepted.
#[derive(Clone, Debug, Error)]
enum NotReady {
    #[error("no answer within {} s", PROBE_LIMIT.as_secs_f64())]
    NoAnswer,
    /// The error's text may name hosts and users, which a public probe does not show.
    #[error("the database refuses connections or breaks them off; the log says how")]
    DatabaseError,
    #[error("not known: the database does not answer")]
    NotKnown,
    #[error(
        "the database's schema is older than this program: {missing} migrations are missing, the first is {first}; \
         restart this program, which runs them"
    )]
    Migrations { missing: usize, first: i64 },
    #[error("{}", joined(.0))]
    Tables(Vec<TableProblem>),
}

fn joined(problems: &[TableProblem]) -> String {
    let sentences: Vec<String> = problems.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}

/// The result of one probe.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    database: Result<(), NotReady>,
    migrations: Result<(), NotReady>,
    queue: Result<(), NotReady>,
}

impl Findings {
    /// The database reported nothing, so nothing is known about the other parts: earlier findings are outdated.
    fn nothing_known(why: NotReady) -> Findings {
        Findings {
            database: Err(why),
            migrations: Err(NotReady::NotKnown),
            queue: Err(NotReady::NotKnown),
        }
    }

    pub fn report(self, health: &Health) {
        for (part, finding) in [
            (HealthPart::Database, self.database),
            (HealthPart::Migrations, self.migrations),
            (HealthPart::Queue, self.queue),
        ] {
            match finding {
                Ok(()) => health.ok(part),
                Err(reason) => health.unavailable(part, reason.to_string()),
            }
        }
    }
}

/// Probes the database at most once a second.
#[derive(Default)]
pub struct DatabaseProbe(Mutex<LastProbe>);

#[derive(Default)]
struct LastProbe {
    findings: Option<(Instant, Findings)>,
    /// Whether the log has the error that the database has returned since it last reported its state.
    error_logged: bool,
}

impl DatabaseProbe {
    pub(super) async fn check(&self, pool: &PgPool) -> Findings {
        let limited = tokio::time::timeout(PROBE_LIMIT, self.probe_or_recall(pool)).await;
        limited.unwrap_or_else(|_| Findings::nothing_known(NotReady::NoAnswer))
    }

    /// Concurrent requests wait here for the one that queries the database, each within its own limit.
    async fn probe_or_recall(&self, pool: &PgPool) -> Findings {
        let mut last = self.0.lock().await;
        if let Some((moment, findings)) = &last.findings
            && moment.elapsed() < PROBE_AGE_MAX
        {
            return findings.clone();
        }
        let findings = match tokio::time::timeout(PROBE_LIMIT, probe(pool)).await {
            Ok(Ok(findings)) => {
                last.error_logged = false;
                findings
            }
            Ok(Err(error)) => last.log_error(&error),
            Err(_) => Findings::nothing_known(NotReady::NoAnswer),
        };
        last.findings = Some((Instant::now(), findings.clone()));
        findings
    }
}

impl LastProbe {
    /// One warning per outage.
    fn log_error(&mut self, error: &sqlx::Error) -> Findings {
        if self.error_logged {
            tracing::debug!(%error, "database probe still fails");
        } else {
            tracing::warn!(%error, "database probe failed: no reading is accepted");
        }
        self.error_logged = true;
        Findings::nothing_known(NotReady::DatabaseError)
    }
}

#[derive(FromRow)]
struct DatabaseState {
    read_only: bool,
    has_migrations: bool,
}

/// `Err`: the database returned an error. Defects of its contents are among the findings.
async fn probe(pool: &PgPool) -> sqlx::Result<Findings> {
    let mut transaction = db::begin(pool).await?;
    let state: DatabaseState = sqlx::query_as(
        "SELECT current_setting('transaction_read_only')::BOOLEAN AS read_only,
                to_regclass('_sqlx_migrations') IS NOT NULL AS has_migrations",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let missing = if state.has_migrations {
        missing_migrations(&mut transaction).await?
    } else {
        db::migration_versions()
    };
    let migrations = match missing.first() {
        None => Ok(()),
        Some(first) => Err(NotReady::Migrations {
            missing: missing.len(),
            first: *first,
        }),
    };
    let problems = if state.read_only {
        [Part::Database, Part::Queue]
            .map(|part| (part, TableProblem::ReadOnly))
            .to_vec()
    } else {
        table_problems(&mut transaction).await?
    };
    transaction.rollback().await?;
    Ok(Findings {
        database: of_part(Part::Database, &problems),
        migrations,
        queue: of_part(Part::Queue, &problems),
    })
}

fn of_part(part: Part, problems: &[(Part, TableProblem)]) -> Result<(), NotReady> {
    let of_part = problems.iter().filter(|(of, _)| *of == part);
    let problems: Vec<TableProblem> = of_part.map(|(_, problem)| problem.clone()).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(NotReady::Tables(problems))
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
