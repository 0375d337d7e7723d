//! Opens the database.

use std::str::FromStr;
use std::time::Duration;

use apalis_postgres::PostgresStorage;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgPool};

use super::StartError;
use crate::config::DatabaseConfig;
use crate::schema;

/// The pool, and the options for connections that a room keeps for itself.
pub(super) struct Database {
    pub pool: PgPool,
    pub options: PgConnectOptions,
}

/// A caller that gets no connection within this time is told so.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);

/// Session settings: whatever waits for a lock, or sleeps inside a transaction, ends by itself.
const SESSION: &str = "SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '30s';
SET TIME ZONE 'UTC'";

pub(super) async fn open(config: &DatabaseConfig) -> Result<Database, StartError> {
    let url = config.url.as_ref().ok_or(StartError::DatabaseUrl)?;
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| StartError::DatabaseUrl)?
        .application_name("gridtokenx")
        // Statements are logged by their room when they matter, never with their values.
        .disable_statement_logging();
    refuse_transaction_pooling(&options).await?;
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(ACQUIRE_LIMIT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SESSION).await?;
                Ok(())
            })
        })
        .connect_with(options.clone())
        .await?;
    migrate(&pool).await?;
    Ok(Database { pool, options })
}

/// Two connections, the second inside a transaction, must be two sessions.
async fn refuse_transaction_pooling(options: &PgConnectOptions) -> Result<(), StartError> {
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
        return Err(StartError::TransactionPooling);
    }
    Ok(())
}

async fn migrate(pool: &PgPool) -> Result<(), StartError> {
    let failed = |error: String| StartError::Migration(error);
    PostgresStorage::setup(pool)
        .await
        .map_err(|error| failed(error.to_string()))?;
    schema::migrator()
        .run(pool)
        .await
        .map_err(|error| failed(error.to_string()))
}
