//! Checks the tables that every submission needs.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor, FromRow, PgConnection};
use thiserror::Error;
use tokio::time::Instant;

use crate::db::SqlCondition;

/// The parts of the service that the tables belong to, each under its own name in the answer of `GET /health/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Database,
    Queue,
}

/// A table that every submission uses, with the privilege and lock that it needs.
struct Table {
    name: &'static str,
    /// The part of the service that is unavailable without it.
    part: Part,
    privilege: &'static str,
    lock_mode: &'static str,
}

impl Table {
    const fn read(name: &'static str, part: Part) -> Table {
        Table {
            name,
            part,
            privilege: "SELECT",
            lock_mode: "ACCESS SHARE",
        }
    }

    const fn written(name: &'static str, part: Part) -> Table {
        Table {
            name,
            part,
            privilege: "INSERT",
            lock_mode: "ROW EXCLUSIVE",
        }
    }
}

const TABLES: [Table; 6] = [
    Table::read("meters", Part::Database),
    Table::written("readings", Part::Database),
    // By a trigger of readings.
    Table::written("reading_count_changes", Part::Database),
    Table::written("metered_intervals", Part::Database),
    Table::written("outbox", Part::Database),
    Table::written("apalis.jobs", Part::Queue),
];

/// How long a probe waits for the locks of all tables together: a submission that waits for longer is slow, and the probe has
/// more to check within its own limit.
const LOCKS_LIMIT: Duration = Duration::from_millis(500);

/// The wait for a table's lock once the limit is used up, so that the probe still finds out whether it is free: a lock that
/// is held for a moment is not an outage.
const LOCK_WAIT_MIN: Duration = Duration::from_millis(20);

/// A fault that keeps readings from being stored.
#[derive(Clone, Debug, Error)]
pub(super) enum TableProblem {
    #[error("the database is read-only (a standby?)")]
    ReadOnly,
    #[error("the table {table} is missing")]
    Missing { table: &'static str },
    #[error("{privilege} on the table {table} is not granted to the user of DATABASE_URL")]
    NotGranted {
        table: &'static str,
        privilege: &'static str,
    },
    #[error("another session keeps the table {table} locked")]
    Locked { table: &'static str },
}

#[derive(FromRow)]
struct TableState {
    is_there: bool,
    is_granted: bool,
}

/// The faults of the tables of a submission, each with the part that it belongs to.
pub(super) async fn table_problems(
    transaction: &mut PgConnection,
) -> sqlx::Result<Vec<(Part, TableProblem)>> {
    let states: Vec<TableState> = sqlx::query_as(
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
    let mut problems = Vec::new();
    for (table, state) in TABLES.iter().zip(states) {
        let problem = if !state.is_there {
            TableProblem::Missing { table: table.name }
        } else if !state.is_granted {
            TableProblem::NotGranted {
                table: table.name,
                privilege: table.privilege,
            }
        } else if !is_free(transaction, table, free_until).await? {
            TableProblem::Locked { table: table.name }
        } else {
            continue;
        };
        problems.push((table.part, problem));
    }
    Ok(problems)
}

/// Whether a submission would get its lock: a session that keeps the whole table locked keeps every reading out.
async fn is_free(
    transaction: &mut PgConnection,
    table: &Table,
    free_until: Instant,
) -> sqlx::Result<bool> {
    let wait = free_until.saturating_duration_since(Instant::now());
    // Rolled back at once: no table stays locked while the probe waits for another one, so that it causes no deadlock.
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
