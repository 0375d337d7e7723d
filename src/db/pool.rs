//! Opens the pool: session settings, limits, and the checks before the first query.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgPool};
use thiserror::Error;

use super::migrations::{MigrationError, migrate};
use super::timeout::within;
use crate::config::DatabaseConfig;

/// The pool, and the options for connections outside it: those that hold an advisory lock.
pub struct Database {
    pub pool: PgPool,
    pub options: PgConnectOptions,
}

/// The database could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "DATABASE_URL is not a Postgres URL: write postgres://user:password@host:port/database"
    )]
    Url,
    #[error("the database does not answer: {0}")]
    Unreachable(#[from] sqlx::Error),
    #[error("the database's schema could not be brought up to date: {0}")]
    Migration(#[from] MigrationError),
    #[error(
        "DATABASE_URL leads through a pooler in transaction mode, where advisory locks, LISTEN and prepared statements \
         break silently: use session mode, or connect to Postgres directly"
    )]
    TransactionPooling,
}

/// A caller that gets no connection within this time gets an error.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection that is returned while it waits for an answer (its caller gave up) may take to get it; then it is
/// closed. Without this limit it would wait, and keep its place in the pool, for as long as the database is silent.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// Session settings: a session that waits for a lock, or idles inside a transaction, is ended by the server, which also notices a
/// process whose host is gone. The keepalive probes also keep a firewall in between from dropping a quiet connection.
const SESSION: &str = "SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '30s';
SET tcp_keepalives_idle = '30s';
SET tcp_keepalives_interval = '10s';
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '30s';
SET TIME ZONE 'UTC'";

/// Opens the database and brings its schema up to date. No statement runs for longer than `statement_limit`, except those of
/// the migrations, which may rewrite a table.
pub async fn open(
    config: &DatabaseConfig,
    statement_limit: Duration,
) -> Result<Database, OpenError> {
    let url = config.url.as_ref().ok_or(OpenError::Url)?;
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| OpenError::Url)?
        .application_name("gridtokenx")
        // Statements are logged by their room when they matter, never with their values.
        .disable_statement_logging();
    refuse_transaction_pooling(&options).await?;
    let migrating = pool_options(1, SESSION.to_owned())
        .connect_with(options.clone())
        .await?;
    migrate(&migrating).await?;
    migrating.close().await;
    let session = format!(
        "{SESSION};\nSET statement_timeout = {}",
        statement_limit.as_millis()
    );
    let pool = pool_options(config.max_connections, session)
        .connect_with(options.clone())
        .await?;
    Ok(Database { pool, options })
}

fn pool_options(max_connections: u32, session: String) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_LIMIT)
        .after_connect(move |connection, _| {
            let session = AssertSqlSafe(session.clone());
            Box::pin(async move {
                connection.execute(session).await?;
                Ok(())
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                // Costs nothing unless an answer is outstanding.
                within(RETURN_LIMIT, connection.flush()).await?;
                Ok(true)
            })
        })
}

/// Two connections, the second inside a transaction, must be two sessions.
async fn refuse_transaction_pooling(options: &PgConnectOptions) -> Result<(), OpenError> {
    let mut first = options.connect().await?;
    let mut second = options.connect().await?;
    let first_pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut first)
        .await?;
    let mut transaction = second.begin().await?;
    let second_pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    first.close().await?;
    second.close().await?;
    if first_pid == second_pid {
        return Err(OpenError::TransactionPooling);
    }
    Ok(())
}
