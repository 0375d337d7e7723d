//! `GET /api/admin/tokenization/status`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::auth::AdminOnly;
use super::super::problem::Problem;
use super::super::state::AppState;
use crate::admin::{Backlog, Runway};

/// The page is for people; one that has not come within this time is not worth the wait.
const READ_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(status))
}

/// What an operator looks at first.
#[derive(Debug, Serialize, ToSchema)]
struct TokenizationStatus {
    /// Whether readings are minted without a trigger.
    auto_mint_enabled: bool,
    /// Share of meters whose readings are minted without a trigger, 0 to 100.
    auto_mint_percentage: i16,
    polling_interval_secs: u64,
    batch_size: u32,
    /// Accepted readings that are not minted or finalized, held ones included.
    unminted_readings_count: i64,
    /// The part that the toggle or the roll-out holds back.
    held_readings_count: i64,
    readings_by_state: ReadingsByState,
    /// When the oldest reading was accepted that waits for the service and not for a person.
    oldest_waiting_at: Option<String>,
    queue: Queue,
    breaker: Breaker,
    chain: Chain,
    /// `null` before the fee payer was looked at.
    runway: Option<RunwayView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReadingsByState {
    pending: i64,
    submitted: i64,
    failed: i64,
    quarantined: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Queue {
    /// Jobs that wait for a worker now.
    due: i64,
    /// Jobs for a later moment.
    scheduled: i64,
    /// Jobs that are run again after an error.
    retrying: i64,
}

/// The ledger breaker: while it is open nothing new is signed.
#[derive(Debug, Serialize, ToSchema)]
struct Breaker {
    /// `closed`, or why it is open: `identity` (another database or timeline) or `mismatch` (a landed mint that the ledger
    /// lacks).
    state: String,
    reason: Option<String>,
    opened_at: Option<String>,
}

/// The chain breaker of the process that answers: while it is open that process does not mint, and no reading uses an attempt.
#[derive(Debug, Serialize, ToSchema)]
struct Chain {
    /// `closed` or `open`.
    state: &'static str,
    /// What is wrong: `unreachable`, `lagging`, `rate_limited`, `failing`, `fee_payer_empty`, `mint_unknown`, `ledger`.
    trouble: Option<&'static str>,
    /// A sentence for the operator.
    reason: Option<String>,
    /// When it took on this state.
    since: String,
    endpoints: Vec<RpcEndpoint>,
}

/// An RPC endpoint, by its place in `SOLANA_RPC_URL`.
#[derive(Debug, Serialize, ToSchema)]
struct RpcEndpoint {
    /// `rpc-1`, `rpc-2`, …
    name: String,
    /// Whether it is the one that is asked first.
    preferred: bool,
    /// Whether it answers, is not behind, and has not asked for a pause.
    healthy: bool,
    /// Block height at its last answer.
    height: Option<u64>,
    /// Blocks below the highest height that any endpoint told.
    lag_blocks: Option<u64>,
    /// It answered 429: seconds until it is called again.
    retry_after_secs: Option<u64>,
    /// Why it did not answer.
    error: Option<String>,
}

/// How long the fee payer's balance lasts.
#[derive(Debug, Serialize, ToSchema)]
struct RunwayView {
    balance_lamports: u64,
    /// What transactions under way may still take of it.
    reserved_lamports: u64,
    /// What must stay of it: its own rent minimum.
    minimum_lamports: u64,
    /// Fees and account rent per reading, of the last six hours; before the first, a fee of 5,000 lamports is assumed.
    lamports_per_reading: u64,
    readings_per_hour: f64,
    /// At this price and rate; `null` while nothing is spent.
    hours: Option<f64>,
    /// Readings for wallets without a token account wait, because its rent cannot be paid; others are minted.
    new_wallets_wait: bool,
}

fn chain_of(state: &AppState) -> Chain {
    let view = state.circuit.view();
    let endpoints = state.endpoints.views().into_iter();
    Chain {
        state: if view.open.is_some() {
            "open"
        } else {
            "closed"
        },
        trouble: view.open.as_ref().map(|opening| opening.trouble.as_str()),
        reason: view.open.map(|opening| opening.reason),
        since: rfc3339(view.since),
        endpoints: endpoints
            .map(|view| RpcEndpoint {
                name: view.name,
                preferred: view.preferred,
                healthy: view.healthy,
                height: view.height,
                lag_blocks: view.lag_blocks,
                // A part of a second is still a wait.
                retry_after_secs: view.retry_after.map(|wait| wait.as_secs() + 1),
                error: view.failure,
            })
            .collect(),
    }
}

impl From<Runway> for RunwayView {
    fn from(runway: Runway) -> RunwayView {
        RunwayView {
            balance_lamports: runway.balance_lamports,
            reserved_lamports: runway.reserved_lamports,
            minimum_lamports: runway.minimum_lamports,
            lamports_per_reading: runway.lamports_per_reading,
            readings_per_hour: runway.readings_per_hour,
            hours: runway.hours,
            new_wallets_wait: runway.new_wallets_wait,
        }
    }
}

/// Whether minting goes on, how much waits, and why nothing is signed if nothing is.
#[utoipa::path(
    get,
    path = "/api/admin/tokenization/status",
    tag = "admin",
    security(("bearer" = [])),
    responses((status = 200, description = "The present state", body = TokenizationStatus, example = json!({
        "auto_mint_enabled": true,
        "auto_mint_percentage": 100,
        "polling_interval_secs": 60,
        "batch_size": 50,
        "unminted_readings_count": 3,
        "held_readings_count": 0,
        "readings_by_state": {"pending": 1, "submitted": 2, "failed": 0, "quarantined": 0},
        "oldest_waiting_at": "2026-11-25T04:00:00.000000Z",
        "queue": {"due": 1, "scheduled": 0, "retrying": 0},
        "breaker": {"state": "closed", "reason": null, "opened_at": null},
        "chain": {
            "state": "closed",
            "trouble": null,
            "reason": null,
            "since": "2026-11-25T04:00:00.000000Z",
            "endpoints": [
                {"name": "rpc-1", "preferred": true, "healthy": true, "height": 281_474, "lag_blocks": 0, "retry_after_secs": null, "error": null},
            ],
        },
        "runway": {
            "balance_lamports": 99_000_000_000_u64,
            "reserved_lamports": 10_000,
            "minimum_lamports": 890_880,
            "lamports_per_reading": 260,
            "readings_per_hour": 4_000.0,
            "hours": 95_190.0,
            "new_wallets_wait": false,
        },
    })))
)]
async fn status(
    _: AdminOnly,
    State(state): State<AppState>,
) -> Result<Json<TokenizationStatus>, Problem> {
    let reading = async {
        let backlog = Backlog::read(&state.pool).await?;
        let runway = Runway::read(&state.pool, state.purse.view()).await?;
        Ok::<_, sqlx::Error>((backlog, runway))
    };
    let (backlog, runway) = tokio::time::timeout(READ_LIMIT, reading)
        .await
        .map_err(|_| {
            Problem::unavailable("the database did not answer in time; try again later")
        })??;
    let settings = state.settings.current();
    let unminted = backlog.unminted;
    let breaker = match backlog.breaker {
        Some(breaker) => Breaker {
            state: breaker.state,
            reason: breaker.reason,
            opened_at: breaker.opened_at.map(rfc3339),
        },
        None => Breaker {
            state: "closed".to_owned(),
            reason: None,
            opened_at: None,
        },
    };
    Ok(Json(TokenizationStatus {
        auto_mint_enabled: settings.auto_mint_enabled,
        auto_mint_percentage: settings.auto_mint_percentage,
        polling_interval_secs: state.polling_interval_secs,
        batch_size: state.batch_size,
        unminted_readings_count: unminted.count(),
        held_readings_count: unminted.held,
        oldest_waiting_at: unminted.oldest_waiting_at.map(rfc3339),
        readings_by_state: ReadingsByState {
            pending: unminted.pending,
            submitted: unminted.submitted,
            failed: unminted.failed,
            quarantined: unminted.quarantined,
        },
        queue: Queue {
            due: backlog.queue.due,
            scheduled: backlog.queue.scheduled,
            retrying: backlog.queue.retrying,
        },
        breaker,
        chain: chain_of(&state),
        runway: runway.map(RunwayView::from),
    }))
}

fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}
