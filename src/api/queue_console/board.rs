//! The figures that the board shows: apalis' own queries, over connections that can only read.

use std::convert::Infallible;
use std::time::Duration;

use apalis_board::axum::framework::{ApiBuilder, RegisterRoute};
use apalis_core::backend::codec::Codec;
use apalis_core::backend::ext::BackendExt;
use apalis_postgres::{Config, PostgresStorage};
use axum::Router;
use axum::http::StatusCode;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};

use crate::outbox::JobKind;

/// The board's figures count the whole table several times: however many look at it, the service has its own connections.
const CONNECTIONS_MAX: u32 = 2;
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// Connections that nobody looks through are closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const SESSION: &str = "SET default_transaction_read_only = on;
SET statement_timeout = '20s';
SET lock_timeout = '2s';
SET TIME ZONE 'UTC'";

pub(super) fn routes(pool: &PgPool) -> Router {
    let pool = reading_pool(pool);
    let mut board = ApiBuilder::new(Router::new());
    for kind in JobKind::ALL {
        let queue = kind.as_str();
        let storage = PostgresStorage::<Value>::new(&pool)
            .with_config(Config::default().queue(queue))
            .with_codec(AnyPayload);
        board = RegisterRoute::<_, Value>::register(board, queue, storage);
    }
    board.build()
}

/// The board would show this process' logs, which are the operator's: 204 tells its page to ask no more.
pub(super) async fn no_events() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn reading_pool(pool: &PgPool) -> PgPool {
    let options = pool.connect_options();
    let options = options
        .as_ref()
        .clone()
        .application_name("gridtokenx queue console");
    PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_LIMIT)
        .idle_timeout(IDLE_LIMIT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SESSION).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

/// Shows every payload: what is no JSON as text.
#[derive(Clone, Copy, Debug, Default)]
struct AnyPayload;

impl Codec<Value> for AnyPayload {
    type Error = Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, value: &Value) -> Result<Vec<u8>, Infallible> {
        Ok(value.to_string().into_bytes())
    }

    fn decode(&self, bytes: &Vec<u8>) -> Result<Value, Infallible> {
        Ok(serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())))
    }
}
