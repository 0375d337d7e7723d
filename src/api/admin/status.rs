//! `GET /api/admin/tokenization/status`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::batches::BatchStats;
use super::chain_status::{Chain, RunwayView};
use super::history_scan::HistoryScan;
use crate::admin::batches::{self, BatchView};
use crate::admin::{Backlog, LedgerBreakerView, QueueDepth, Runway};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::chain_access::{ChainAccess, MintingStatus};
use crate::api::problem::Problem;
use crate::api::state::AppState;
use crate::config::EffectiveConfig;
use crate::domain::rfc3339_micros;
use crate::ledger::{ProofProgress, ReadingCounts, UnreadableTransaction};
use crate::periodic::ListedTask;
use crate::queue::{self, ProcessView};

/// The status page is for people: a longer wait is not worth it.
const READ_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(status))
}

/// The first page for an operator.
#[derive(Debug, Serialize, ToSchema)]
struct TokenizationStatus {
    /// Whether readings are minted without a trigger.
    auto_mint_enabled: bool,
    /// Share of meters whose readings are minted without a trigger, 0 to 100.
    auto_mint_percentage: i16,
    /// Admin who last changed one of these two; null when neither was changed since the first start.
    auto_mint_changed_by: Option<String>,
    /// When that was; otherwise the first start.
    auto_mint_changed_at: String,
    polling_interval_secs: u64,
    batch_size: u32,
    /// Accepted readings that are neither minted nor finalized, held ones included.
    unminted_readings_count: i64,
    /// The number of those that the toggle or the roll-out holds back.
    held_readings_count: i64,
    /// Readings ever accepted: the sum of `readings_by_state`, at every moment.
    accepted_readings_count: i64,
    readings_by_state: ReadingsByState,
    /// When the oldest reading that waits for the service, not for a person, was accepted.
    oldest_waiting_at: Option<String>,
    queue: Queue,
    breaker: Breaker,
    /// `null` before the ledger is set up.
    history_scan: Option<HistoryScan>,
    proofs: Proofs,
    chain: Chain,
    /// `null` until the fee payer was queried.
    runway: Option<RunwayView>,
    /// The newest sweep that has ended, even if it found nothing; null before the first.
    last_sweep: Option<LastSweep>,
    /// The newest batches, running ones included, without sweeps that found nothing.
    recent_batch_stats: Vec<BatchStats>,
    /// The settings of this process as strings, by variable; `null`: unset, `***`: set and secret.
    #[schema(value_type = Object)]
    configuration: EffectiveConfig,
    /// Processes that run jobs of the queue at present.
    workers_alive: usize,
    processes: Vec<Process>,
    /// The periodic tasks of this process.
    periodic_tasks: Vec<PeriodicTask>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PeriodicTask {
    name: String,
    every_secs: f64,
    /// Of one run; null when each of its steps has its own limit.
    limit_secs: Option<f64>,
    /// Runs that have ended here, failed ones included. A task that runs in one process of the deployment has none in the others.
    runs: u64,
}

impl From<&ListedTask> for PeriodicTask {
    fn from(task: &ListedTask) -> PeriodicTask {
        let timing = task.timing;
        PeriodicTask {
            name: timing.name.to_owned(),
            every_secs: timing.every.as_secs_f64(),
            limit_secs: timing.limit.map(|limit| limit.as_secs_f64()),
            runs: task.runs(),
        }
    }
}

/// The newest sweep.
#[derive(Debug, Serialize, ToSchema)]
struct LastSweep {
    /// When it ended.
    at: Option<String>,
    /// Stragglers that it claimed.
    found: u64,
    #[serde(flatten)]
    stats: BatchStats,
}

impl From<&BatchView> for LastSweep {
    fn from(sweep: &BatchView) -> LastSweep {
        LastSweep {
            at: sweep.finished_at.map(rfc3339_micros),
            found: sweep.figures.total,
            stats: BatchStats::from(sweep),
        }
    }
}

/// Batches in the answer.
const RECENT_BATCHES: u16 = 10;

#[derive(Debug, Serialize, ToSchema)]
struct ReadingsByState {
    pending: i64,
    submitted: i64,
    minted: i64,
    finalized: i64,
    failed: i64,
    quarantined: i64,
}

impl From<ReadingCounts> for ReadingsByState {
    fn from(counts: ReadingCounts) -> ReadingsByState {
        ReadingsByState {
            pending: counts.pending,
            submitted: counts.submitted,
            minted: counts.minted,
            finalized: counts.finalized,
            failed: counts.failed,
            quarantined: counts.quarantined,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Queue {
    /// Jobs that wait for a worker.
    due: i64,
    /// Jobs that are due later.
    scheduled: i64,
    /// Jobs that are retried after an error.
    retrying: i64,
    /// Jobs of the last week that can never run: unreadable, or their reading does not exist.
    dead: i64,
}

impl From<QueueDepth> for Queue {
    fn from(depth: QueueDepth) -> Queue {
        Queue {
            due: depth.due,
            scheduled: depth.scheduled,
            retrying: depth.retrying,
            dead: depth.dead,
        }
    }
}

/// A process of this service, on any host.
#[derive(Debug, Serialize, ToSchema)]
struct Process {
    /// The prefix of the names of its queue workers.
    worker_prefix: String,
    /// `all`, `api` (no queue workers) or `worker` (no public API).
    role: String,
    /// Process id on its own host.
    pid: i32,
    started_at: String,
    /// Whether it holds its lock in the database. A process that does not is dead or hung, and other processes run its jobs.
    alive: bool,
}

impl From<ProcessView> for Process {
    fn from(view: ProcessView) -> Process {
        Process {
            worker_prefix: view.worker_prefix,
            role: view.role,
            pid: view.pid,
            started_at: rfc3339_micros(view.started_at),
            alive: view.alive,
        }
    }
}

/// The ledger breaker: while it is open, nothing new is signed.
#[derive(Debug, Serialize, ToSchema)]
struct Breaker {
    /// `closed`, or why it is open: `identity` (another database or timeline) or `mismatch` (a landed mint that the ledger
    /// lacks).
    state: String,
    reason: Option<String>,
    opened_at: Option<String>,
}

impl From<Option<LedgerBreakerView>> for Breaker {
    /// `None`: the ledger is not bound to a chain yet, so nothing has opened it.
    fn from(view: Option<LedgerBreakerView>) -> Breaker {
        let state = view.as_ref().map_or("closed", |view| view.state.as_str());
        Breaker {
            state: state.to_owned(),
            opened_at: view
                .as_ref()
                .and_then(|view| view.opened_at)
                .map(rfc3339_micros),
            reason: view.and_then(|view| view.reason),
        }
    }
}

/// Expired mint transactions whose outcome is not known, and the search for it.
#[derive(Debug, Serialize, ToSchema)]
struct Proofs {
    /// Neither found on chain nor proven dead; quarantined ones are included.
    unproven_transactions: i64,
    /// When the oldest of them expired.
    oldest_expired_at: Option<String>,
    /// Why the last search for one of them did not complete.
    no_proof: Option<String>,
    /// Unbroken runs of finalized blocks that are kept for these searches.
    runs: i64,
}

impl From<ProofProgress> for Proofs {
    fn from(progress: ProofProgress) -> Proofs {
        Proofs {
            unproven_transactions: progress.unproven,
            oldest_expired_at: progress.oldest_expired_at.map(rfc3339_micros),
            no_proof: progress.no_proof,
            runs: progress.runs,
        }
    }
}

/// The state of minting: whether it continues, how much waits, and, if nothing is signed, why.
#[utoipa::path(
    get,
    path = "/api/admin/tokenization/status",
    tag = "admin",
    security(("bearer" = [])),
    responses((status = 200, description = "The present state", body = TokenizationStatus, example = json!({
        "auto_mint_enabled": true,
        "auto_mint_percentage": 100,
        "auto_mint_changed_by": "operator",
        "auto_mint_changed_at": "2026-11-24T09:00:00.000000Z",
        "polling_interval_secs": 60,
        "batch_size": 50,
        "unminted_readings_count": 3,
        "held_readings_count": 0,
        "accepted_readings_count": 8380,
        "readings_by_state": {"pending": 1, "submitted": 2, "minted": 19, "finalized": 8358, "failed": 0, "quarantined": 0},
        "oldest_waiting_at": "2026-11-25T04:00:00.000000Z",
        "queue": {"due": 1, "scheduled": 0, "retrying": 0, "dead": 0},
        "breaker": {"state": "closed", "reason": null, "opened_at": null},
        "history_scan": {
            "watermark_slot": 281_400,
            "age_secs": 41.5,
            "known_as_of": "2026-11-25T04:00:00.000000Z",
            "last_success_at": "2026-11-25T04:00:01.000000Z",
            "under_way": null,
            "failures": 0,
            "last_error_at": null,
            "last_error": null,
            "unreadable_count": 0,
            "unreadable": [],
        },
        "proofs": {"unproven_transactions": 0, "oldest_expired_at": null, "no_proof": null, "runs": 0},
        "chain": {
            "state": "closed",
            "trouble": null,
            "reason": null,
            "since": "2026-11-25T04:00:00.000000Z",
            "consensus": "alpenglow",
            "parameters": {
                "token_account_rent_lamports": 1_488_440,
                "fee_payer_minimum_lamports": 650_240,
                "signature_lamports": 5_000,
                "slot_ms": 200.0,
                "blockhash_life_secs": 30.0,
                "transaction_timeout_outlives_blockhash": true,
            },
            "transaction_format": "v1",
            "endpoints": [
                {"name": "rpc-1", "preferred": true, "healthy": true, "consensus": "alpenglow", "height": 281_474, "lag_blocks": 0, "retry_after_secs": null, "error": null, "takes_v1": true},
            ],
        },
        "runway": {
            "balance_lamports": 99_000_000_000_u64,
            "reserved_lamports": 10_000,
            "minimum_lamports": 650_240,
            "lamports_per_reading": 260,
            "readings_per_hour": 4_000.0,
            "hours": 95_190.0,
            "new_wallets_wait": false,
        },
        "last_sweep": null,
        "recent_batch_stats": [],
        "configuration": {"TOKENIZATION_BATCH_SIZE": "50", "SOLANA_RPC_URL": "***", "SOLANA_MINT_ADDRESS": null},
        "workers_alive": 1,
        "processes": [{
            "worker_prefix": "gridtokenx-0123456789abcdef",
            "role": "all",
            "pid": 4711,
            "started_at": "2026-11-25T04:00:00.000000Z",
            "alive": true,
        }],
        "periodic_tasks": [
            {"name": "event retention", "every_secs": 60.0, "limit_secs": 60.0, "runs": 12},
            {"name": "disk watch", "every_secs": 5.0, "limit_secs": 5.0, "runs": 144},
        ],
    })))
)]
async fn status(
    _: AdminOnly,
    State(pool): State<PgPool>,
    State(chain): State<ChainAccess>,
    State(minting): State<MintingStatus>,
) -> Result<Json<TokenizationStatus>, Problem> {
    let reading = async {
        let backlog = Backlog::read(&pool).await?;
        let runway = Runway::read(&pool, minting.fee_budget.view()).await?;
        let processes = queue::processes(&pool).await?;
        let last_sweep = batches::last_sweep(&pool).await?;
        let recent = batches::recent(&pool, RECENT_BATCHES).await?;
        let unreadable = UnreadableTransaction::list(&pool).await?;
        Ok::<_, sqlx::Error>((backlog, runway, processes, last_sweep, recent, unreadable))
    };
    let (backlog, runway, processes, last_sweep, recent, unreadable) =
        tokio::time::timeout(READ_LIMIT, reading)
            .await
            .map_err(|_| {
                Problem::unavailable("the database did not answer in time; try again later")
            })??;
    let (stored, waiting) = (backlog.stored, backlog.waiting);
    let settings = stored.settings;
    Ok(Json(TokenizationStatus {
        auto_mint_enabled: settings.auto_mint_enabled,
        auto_mint_percentage: settings.auto_mint_percentage,
        auto_mint_changed_by: stored.changed_by,
        auto_mint_changed_at: rfc3339_micros(stored.changed_at),
        polling_interval_secs: minting.settings.polling_interval_secs,
        batch_size: minting.settings.batch_size,
        unminted_readings_count: backlog.readings.unminted(),
        held_readings_count: waiting.held,
        oldest_waiting_at: waiting.oldest_waiting_at.map(rfc3339_micros),
        accepted_readings_count: backlog.readings.accepted(),
        readings_by_state: backlog.readings.into(),
        queue: backlog.queue.into(),
        breaker: backlog.breaker.into(),
        history_scan: backlog
            .history
            .map(|history| HistoryScan::of(&history, &unreadable)),
        proofs: backlog.proofs.into(),
        chain: Chain::of(
            &minting.circuit_breaker,
            &chain.endpoints,
            minting.settings.transaction_timeout,
            minting.estimator.transaction_format(),
        ),
        runway: runway.map(RunwayView::from),
        last_sweep: last_sweep.as_ref().map(LastSweep::from),
        recent_batch_stats: recent.iter().map(BatchStats::from).collect(),
        configuration: minting.settings.all.clone(),
        workers_alive: processes
            .iter()
            .filter(|process| process.is_worker_alive())
            .count(),
        processes: processes.into_iter().map(Process::from).collect(),
        periodic_tasks: minting
            .periodic_tasks
            .all()
            .iter()
            .map(PeriodicTask::from)
            .collect(),
    }))
}
