//! The data that the board shows: queries of apalis itself, over read-only connections.

use std::convert::Infallible;
use std::time::Duration;

use apalis_board::axum::framework::{ApiBuilder, RegisterRoute};
use apalis_core::backend::codec::Codec;
use apalis_core::backend::ext::BackendExt;
use apalis_postgres::{Config, PostgresStorage};
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{Extension, Router};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};

use crate::api::auth::principal::Principal;
use crate::api::live_feed::LiveFeed;
use crate::api::problem::Problem;
use crate::feed::{StreamKind, end_of_token};
use crate::queue;

/// The board counts the whole table several times: any number of viewers leaves the service its own connections.
const CONNECTIONS_MAX: u32 = 2;
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);
/// Unused connections are closed after this time.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Keeps proxies from closing the quiet stream as dead.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
const SESSION: &str = "SET default_transaction_read_only = on;
SET statement_timeout = '20s';
SET lock_timeout = '2s';
SET TIME ZONE 'UTC'";

pub(super) fn routes(pool: &PgPool) -> Router {
    let pool = reading_pool(pool);
    let mut board = ApiBuilder::new(Router::new());
    for job_name in queue::job_names() {
        let storage = PostgresStorage::<Value>::new(&pool)
            .with_config(Config::default().queue(job_name))
            .with_codec(AnyPayload);
        board = RegisterRoute::<_, Value>::register(board, job_name, storage);
    }
    board.build()
}

/// The board would show the logs of this process here, which are for the operator only. Without an open stream it reports an
/// unhealthy system, so this stream stays open without events until the session or the process ends.
pub(super) async fn no_events(
    State(feed): State<LiveFeed>,
    Extension(admin): Extension<Principal>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let permit = feed.take_permit(StreamKind::ServerSentEvents)?;
    let draining = feed.draining;
    let end = async move {
        tokio::select! {
            () = draining.cancelled() => {}
            () = end_of_token(Some(admin.expires_at)) => {}
        }
        drop(permit);
    };
    let events = stream::pending().take_until(Box::pin(end));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
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

/// Shows every payload; one that is not JSON appears as a string.
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
