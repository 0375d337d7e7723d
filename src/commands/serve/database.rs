//! Opens the database.

use std::str::FromStr;
use std::time::Duration;

use apalis_postgres::PostgresStorage;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgPool};

use super::StartError;
use crate::config::DatabaseConfig;
use crate::holder::within;
use crate::schema;

/// The pool, and the options for connections that a room keeps for itself.
pub(super) struct Database {
    pub pool: PgPool,
    pub options: PgConnectOptions,
}

/// A caller that gets no connection within this time is told so.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);

/// A connection that comes back while it waits for an answer (its caller gave up) is given so long to get it; then it is
/// closed. Without that it would wait, and keep its place in the pool, for as long as the database is silent.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// Session settings: whatever waits for a lock, or sleeps inside a transaction, ends by itself, and the server notices a
/// process whose host is gone. Its probes also keep a firewall between the two from forgetting a quiet connection.
const SESSION: &str = "SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '30s';
SET tcp_keepalives_idle = '30s';
SET tcp_keepalives_interval = '10s';
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '30s';
SET TIME ZONE 'UTC'";

/// No statement runs for longer than `statement_limit`, but those of the migrations, which may rewrite a table.
pub(super) async fn open(
    config: &DatabaseConfig,
    statement_limit: Duration,
) -> Result<Database, StartError> {
    let url = config.url.as_ref().ok_or(StartError::DatabaseUrl)?;
    let options = PgConnectOptions::from_str(url.expose())
        .map_err(|_| StartError::DatabaseUrl)?
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
