//! All metrics of the service: their names, labels and help texts.
//!
//! Figures that are read from the database (their help says so) are the same on each replica: dashboards and rules take
//! their maximum and never their sum.

/// The kind of a metric, which determines how values of several replicas are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric: name, kind, its label with all its values if it has one, and the help text.
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Label name and its values; `None` for a metric without a label.
    pub label: Option<(&'static str, &'static [&'static str])>,
    /// It has a label `endpoint` with the names of the configured endpoints: its series exist from the first probe on.
    pub by_endpoint: bool,
    /// A gauge's value before the first measurement.
    pub first: f64,
    pub help: &'static str,
}

// Readings
pub const READINGS_RECEIVED: &str = "gridtokenx_meter_readings_received_total";
pub const READINGS_PROCESSED: &str = "gridtokenx_meter_readings_processed_total";
pub const UNMINTED_READINGS: &str = "gridtokenx_unminted_readings_count";
pub const HELD_READINGS: &str = "gridtokenx_held_readings_count";
pub const READINGS_BY_STATE: &str = "gridtokenx_readings_by_state";
pub const OVERDUE_READINGS: &str = "gridtokenx_overdue_readings_count";
pub const OLDEST_UNMINTED_AGE_SECONDS: &str = "gridtokenx_oldest_unminted_reading_age_seconds";
pub const READING_STAGE_SECONDS: &str = "gridtokenx_reading_stage_duration_seconds";
// Group commit
pub const COALESCER_BATCH_ITEMS: &str = "gridtokenx_coalescer_batch_items";
pub const COALESCER_WAIT_SECONDS: &str = "gridtokenx_coalescer_wait_duration_seconds";
// Minting
pub const MINTING_SUCCESSES: &str = "gridtokenx_token_minting_successes_total";
pub const MINTING_FAILURES: &str = "gridtokenx_token_minting_failures_total";
pub const MINT_ATTEMPTS: &str = "gridtokenx_reading_mint_attempts";
pub const MINT_PROMISES: &str = "gridtokenx_mint_promises_total";
pub const TOKENS_MINTED: &str = "gridtokenx_tokens_minted_total";
pub const MINT_TRANSACTIONS: &str = "gridtokenx_mint_transactions_total";
pub const MINT_TRANSACTION_READINGS: &str = "gridtokenx_mint_transaction_readings";
pub const MINT_TRANSACTION_SIZE_BYTES: &str = "gridtokenx_mint_transaction_size_bytes";
pub const MINT_TRANSACTION_FORMATS: &str = "gridtokenx_mint_transaction_formats_total";
pub const TOKEN_ACCOUNT_CREATIONS: &str = "gridtokenx_token_account_creations_total";
pub const BATCH_SECONDS: &str = "gridtokenx_batch_processing_duration_seconds";
pub const SWEEP_FINISHED_TIMESTAMP_SECONDS: &str =
    "gridtokenx_sweep_last_finished_timestamp_seconds";
// Queue
pub const QUEUE_JOBS: &str = "gridtokenx_queue_jobs";
pub const QUEUE_DEAD_JOBS: &str = "gridtokenx_queue_dead_jobs_total";
pub const QUEUE_OLDEST_DUE_AGE_SECONDS: &str = "gridtokenx_queue_oldest_due_age_seconds";
pub const QUEUE_OLDEST_RUNNING_AGE_SECONDS: &str = "gridtokenx_queue_oldest_running_age_seconds";
pub const LISTENER_CONNECTED: &str = "gridtokenx_listener_connected";
pub const LISTENER_BROKEN: &str = "gridtokenx_listener_broken_total";
// Ledger and chain
pub const LEDGER_BREAKER_OPEN: &str = "gridtokenx_ledger_breaker_open";
pub const LEDGER_MISMATCHES: &str = "gridtokenx_ledger_mismatches";
pub const HISTORY_SCAN_WATERMARK_AGE_SECONDS: &str =
    "gridtokenx_history_scan_watermark_age_seconds";
pub const HISTORY_SCAN_LAST_SUCCESS_TIMESTAMP_SECONDS: &str =
    "gridtokenx_history_scan_last_success_timestamp_seconds";
pub const HISTORY_SCAN_UNREADABLE: &str = "gridtokenx_history_scan_unreadable_transactions";
pub const HISTORY_SCAN_STOPS: &str = "gridtokenx_history_scan_stops_total";
pub const PROOF_BLOCKS_READ: &str = "gridtokenx_proof_blocks_read_total";
pub const UNPROVEN_TRANSACTIONS: &str = "gridtokenx_unproven_transactions_count";
pub const OLDEST_UNPROVEN_AGE_SECONDS: &str = "gridtokenx_oldest_unproven_transaction_age_seconds";
pub const SCANNED_RUNS: &str = "gridtokenx_scanned_runs_count";
pub const AUDIT_DIFFERENCES: &str = "gridtokenx_audit_differences";
pub const AUDIT_FINISHED_TIMESTAMP_SECONDS: &str =
    "gridtokenx_audit_last_finished_timestamp_seconds";
pub const CHAIN_BREAKER_OPEN: &str = "gridtokenx_chain_breaker_open";
pub const FEE_PAYER_BALANCE_LAMPORTS: &str = "gridtokenx_fee_payer_balance_lamports";
pub const FEE_PAYER_RUNWAY_SECONDS: &str = "gridtokenx_fee_payer_runway_seconds";
pub const RPC_CALLS: &str = "gridtokenx_rpc_calls_total";
pub const RPC_CALL_SECONDS: &str = "gridtokenx_rpc_call_duration_seconds";
pub const RPC_ENDPOINT_HEIGHT: &str = "gridtokenx_rpc_endpoint_height";
pub const RPC_ENDPOINT_LAG_BLOCKS: &str = "gridtokenx_rpc_endpoint_lag_blocks";
pub const RPC_ENDPOINT_HEALTHY: &str = "gridtokenx_rpc_endpoint_healthy";
pub const RPC_ENDPOINT_PROVES_DEATHS: &str = "gridtokenx_rpc_endpoint_proves_deaths";
pub const FEES_PAID_LAMPORTS: &str = "gridtokenx_fees_paid_lamports_total";
pub const TOKEN_ACCOUNT_RENT_LAMPORTS: &str = "gridtokenx_token_account_rent_lamports";
pub const SIGNATURE_FEE_LAMPORTS: &str = "gridtokenx_signature_fee_lamports";
pub const FEES_MISBOOKED_LAMPORTS: &str = "gridtokenx_fees_misbooked_lamports_total";
pub const SLOT_SECONDS: &str = "gridtokenx_slot_seconds";
pub const BLOCKHASH_LIFE_SECONDS: &str = "gridtokenx_blockhash_life_seconds";
pub const CONSENSUS: &str = "gridtokenx_consensus";
pub const PRIORITY_FEE_MICROLAMPORTS: &str = "gridtokenx_priority_fee_microlamports";
// Feed
pub const WEBSOCKET_ACTIVE: &str = "gridtokenx_websocket_connections_active";
pub const WEBSOCKET_CONNECTIONS: &str = "gridtokenx_websocket_connections_total";
pub const WEBSOCKET_ERRORS: &str = "gridtokenx_websocket_errors_total";
pub const WEBSOCKET_CLOSES: &str = "gridtokenx_websocket_closes_total";
pub const SSE_ACTIVE: &str = "gridtokenx_sse_streams_active";
pub const SSE_STREAMS: &str = "gridtokenx_sse_streams_total";
pub const STREAMS_REFUSED: &str = "gridtokenx_feed_streams_refused_total";
pub const FEED_OVERFLOWS: &str = "gridtokenx_feed_overflows_total";
pub const OUTBOX_OLDEST_AGE_SECONDS: &str = "gridtokenx_outbox_oldest_event_age_seconds";
pub const FEED_LAST_SEQ: &str = "gridtokenx_feed_last_seq";
pub const FEED_OLDEST_SEQ: &str = "gridtokenx_feed_oldest_seq";
pub const FEED_OLDEST_AGE_SECONDS: &str = "gridtokenx_feed_oldest_event_age_seconds";
pub const FEED_PARTITIONS: &str = "gridtokenx_feed_partitions";
pub const FEED_PARTITIONS_DROPPED: &str = "gridtokenx_feed_partitions_dropped_total";
pub const FEED_DELIVERY_SECONDS: &str = "gridtokenx_feed_delivery_seconds";
// HTTP and process
pub const HTTP_REQUESTS: &str = "gridtokenx_http_requests_total";
pub const HTTP_REQUEST_SECONDS: &str = "gridtokenx_http_request_duration_seconds";
pub const PROCESS_START_TIME_SECONDS: &str = "gridtokenx_process_start_time_seconds";
pub const PROCESS_CPU_MILLISECONDS: &str = "gridtokenx_process_cpu_milliseconds_total";
pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "gridtokenx_process_resident_memory_bytes";
pub const PROCESS_OPEN_FDS: &str = "gridtokenx_process_open_fds";
pub const PROCESS_MAX_FDS: &str = "gridtokenx_process_max_fds";
pub const RUNTIME_WORKERS: &str = "gridtokenx_runtime_workers";
pub const RUNTIME_ALIVE_TASKS: &str = "gridtokenx_runtime_alive_tasks";
pub const RUNTIME_GLOBAL_QUEUE_TASKS: &str = "gridtokenx_runtime_global_queue_tasks";
pub const RUNTIME_BUSY_MILLISECONDS: &str = "gridtokenx_runtime_busy_milliseconds_total";
pub const DISK_FREE_BYTES: &str = "gridtokenx_disk_free_bytes";
// Traces
pub const TRACE_SPANS: &str = "gridtokenx_trace_spans_total";
// Canary
pub const CANARY_ENABLED: &str = "gridtokenx_canary_enabled";
pub const CANARY_AGE_SECONDS: &str = "gridtokenx_canary_age_seconds";
pub const CANARY_SECONDS: &str = "gridtokenx_canary_duration_seconds";
// Database and build
pub const DATABASE_CONNECTIONS: &str = "gridtokenx_database_connections";
pub const DATABASE_ANSWERS: &str = "gridtokenx_database_answers";
pub const DATABASE_FIGURES_STALE: &str = "gridtokenx_database_figures_stale";
pub const BUILD_INFO: &str = "gridtokenx_build_info";

/// Values of the label `stage`, in the order in which a reading passes them.
pub const STAGES: &[&str] = &[
    "stored",
    "queued",
    "picked",
    "signed",
    "sent",
    "confirmed",
    "finalized",
    "delivered",
];

/// Values of the label `method` of calls to RPC endpoints: the methods that this service calls, and one for all others.
pub const RPC_METHODS: &[&str] = &[
    "getAccountInfo",
    "getAgGenesisCert",
    "getBalance",
    "getBlock",
    "getBlockHeight",
    "getBlockTime",
    "getBlocks",
    "getFeeForMessage",
    "getFirstAvailableBlock",
    "getGenesisHash",
    "getHealth",
    "getLatestBlockhash",
    "getMinimumBalanceForRentExemption",
    "getMultipleAccounts",
    "getRecentPrioritizationFees",
    "getSignatureStatuses",
    "getSignaturesForAddress",
    "getSlot",
    "getTokenSupply",
    "getTransaction",
    "getVersion",
    "requestAirdrop",
    "sendTransaction",
    "simulateTransaction",
    "other",
];

/// Values of the label `consensus`.
pub const CONSENSUSES: &[&str] = &["alpenglow", "tower", "unknown"];

/// Values of the label `reason` of closed WebSocket connections.
pub const CLOSE_REASONS: &[&str] = &[
    "gone",
    "left",
    "silent",
    "going_away",
    "unauthorized",
    "token_expired",
    "too_slow",
    "unanswered_messages",
    "too_many_messages",
    "too_many_requests",
    "bad_messages",
    "filter_too_long",
    "message_too_big",
    "too_many_fragments",
    "message_unfinished",
    "not_utf8",
    "protocol_error",
    "log_unavailable",
];

/// Values of the label `coalescer`.
pub const COALESCERS: &[&str] = &["intake", "refusals", "mint"];

/// The running version, with the commit as build metadata (Semantic Versioning, section 10).
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("GRIDTOKENX_COMMIT"));

/// Values of the label `status` of HTTP answers.
pub const STATUS_CLASSES: &[&str] = &["1xx", "2xx", "3xx", "4xx", "5xx"];

const fn plain(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        label: None,
        by_endpoint: false,
        first: 0.0,
        help,
    }
}

/// A gauge for which zero is the worst value, so it is NaN until its first measurement: comparisons with NaN are false, and
/// `min` and `max` ignore it.
const fn nan_until_measured(name: &'static str, help: &'static str) -> Metric {
    Metric {
        first: f64::NAN,
        ..plain(name, Gauge, help)
    }
}

const fn by_endpoint(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        label: None,
        by_endpoint: true,
        first: 0.0,
        help,
    }
}

const fn labelled(
    name: &'static str,
    kind: Kind,
    label: &'static str,
    values: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        label: Some((label, values)),
        by_endpoint: false,
        first: 0.0,
        help,
    }
}

use Kind::{Counter, Gauge, Histogram};

/// All metrics; [`Metrics::install`](super::Metrics::install) registers them.
#[rustfmt::skip]
pub const ALL: &[Metric] = &[
    plain(READINGS_RECEIVED, Counter, "Readings that arrived over the API, accepted or not."),
    plain(READINGS_PROCESSED, Counter, "Readings that were accepted and stored with their job."),
    plain(UNMINTED_READINGS, Gauge, "Accepted readings that are not minted or finalized, held ones included (from the database)."),
    plain(HELD_READINGS, Gauge, "Pending readings held back by the auto-mint toggle or the roll-out (from the database)."),
    labelled(READINGS_BY_STATE, Gauge, "state", &["pending", "submitted", "failed", "quarantined"], "Unminted readings by state (from the database)."),
    plain(OVERDUE_READINGS, Gauge, "Readings that wait to be minted for longer than 5 minutes since they were accepted, or since an admin last changed the auto-mint setting; held and failed ones wait for a person and are left out (from the database)."),
    plain(OLDEST_UNMINTED_AGE_SECONDS, Gauge, "Age of the oldest reading that waits to be minted; held and failed ones wait for a person and are left out (from the database)."),
    labelled(READING_STAGE_SECONDS, Histogram, "stage", STAGES, "Seconds from a reading's acceptance until it reached the stage."),
    labelled(COALESCER_BATCH_ITEMS, Histogram, "coalescer", COALESCERS, "Items in one batch."),
    labelled(COALESCER_WAIT_SECONDS, Histogram, "coalescer", COALESCERS, "Seconds from a call until its batch started."),
    plain(MINTING_SUCCESSES, Counter, "Readings whose mint was confirmed on chain."),
    plain(MINTING_FAILURES, Counter, "Attempts to mint a reading that preflight, simulation or the chain refused."),
    plain(MINT_ATTEMPTS, Histogram, "Attempts that a reading had needed when its mint was confirmed: 1, and those that were refused since an admin last retried it."),
    labelled(MINT_PROMISES, Counter, "outcome", &["kept", "late"], "Confirmed readings by whether that took at most 5 minutes since they were accepted, or since an admin last changed the auto-mint setting; readings that only a trigger mints are left out."),
    plain(TOKENS_MINTED, Counter, "Base units confirmed on chain."),
    labelled(MINT_TRANSACTIONS, Counter, "outcome", &["recorded", "confirmed", "finalized", "dead", "forked", "quarantined"], "Mint transactions by outcome."),
    plain(MINT_TRANSACTION_READINGS, Histogram, "Readings in one recorded mint transaction."),
    plain(MINT_TRANSACTION_SIZE_BYTES, Histogram, "Size of one recorded mint transaction, bytes; 1,232 at most in the legacy format, 4,096 in v1."),
    labelled(MINT_TRANSACTION_FORMATS, Counter, "format", &["legacy", "v1"], "Recorded mint transactions by format."),
    plain(TOKEN_ACCOUNT_CREATIONS, Counter, "Token accounts that recorded mint transactions create for wallets that have none."),
    plain(BATCH_SECONDS, Histogram, "Seconds that one mint batch took, from packing to the last send."),
    plain(SWEEP_FINISHED_TIMESTAMP_SECONDS, Gauge, "Unix time at which this process last finished a sweep; 0 before the first."),
    labelled(QUEUE_JOBS, Gauge, "state", &["due", "scheduled", "retrying", "running", "dead"], "Jobs of the queue: due now, scheduled for later, to be retried after an error, taken by a worker, or dead-lettered and kept for a week (from the database)."),
    labelled(QUEUE_DEAD_JOBS, Counter, "cause", &["unreadable_row", "unreadable_payload", "unknown_reading"], "Jobs that this process dead-lettered because they can never run."),
    plain(QUEUE_OLDEST_DUE_AGE_SECONDS, Gauge, "How long the oldest due job has been waiting for a worker (from the database)."),
    plain(QUEUE_OLDEST_RUNNING_AGE_SECONDS, Gauge, "How long ago the job that a worker has held for longest was taken (from the database)."),
    plain(LISTENER_CONNECTED, Gauge, "1 while notifications of the database reach this process; without them work is found by polling."),
    labelled(LISTENER_BROKEN, Counter, "how", &["ended", "deaf"], "Times that the listening connection was replaced: it ended, or was open but delivered nothing."),
    plain(LEDGER_BREAKER_OPEN, Gauge, "1 while the ledger breaker is open and nothing new is signed (from the database)."),
    plain(LEDGER_MISMATCHES, Gauge, "Landed mints of our authority that the ledger lacks and no admin has adopted or booked (from the database)."),
    nan_until_measured(HISTORY_SCAN_WATERMARK_AGE_SECONDS, "How long ago the last whole scan of the authority's history began, seconds; before the first, since the ledger was set up; NaN before that (from the database)."),
    plain(HISTORY_SCAN_LAST_SUCCESS_TIMESTAMP_SECONDS, Gauge, "Unix time at which the last whole scan of the authority's history finished; 0 before the first (from the database)."),
    plain(HISTORY_SCAN_UNREADABLE, Gauge, "Transactions of the authority's history that no endpoint shows in a form that this program can read; they hold the watermark down (from the database)."),
    labelled(HISTORY_SCAN_STOPS, Counter, "how", &["paused", "failed"], "Times that a scan of the authority's history stopped before its end: paused by an endpoint's limit, or failed; it goes on where it was."),
    plain(PROOF_BLOCKS_READ, Counter, "Finalized blocks that this process read to prove that expired mint transactions did not land."),
    plain(UNPROVEN_TRANSACTIONS, Gauge, "Expired mint transactions that are neither found on chain nor proven dead, quarantined ones included (from the database)."),
    plain(OLDEST_UNPROVEN_AGE_SECONDS, Gauge, "How long ago the oldest of those expired (from the database)."),
    plain(SCANNED_RUNS, Gauge, "Unbroken runs of finalized blocks that are kept for proofs (from the database)."),
    nan_until_measured(AUDIT_DIFFERENCES, "Differences between ledger and chain that the last recorded audit found; NaN before the first (from the database)."),
    plain(AUDIT_FINISHED_TIMESTAMP_SECONDS, Gauge, "Unix time at which the last recorded audit finished; 0 before the first (from the database)."),
    plain(CHAIN_BREAKER_OPEN, Gauge, "1 while this process does not mint because of the chain: no usable endpoint, an empty fee payer, an unknown mint."),
    nan_until_measured(FEE_PAYER_BALANCE_LAMPORTS, "Balance of the fee payer as this process last read it; NaN before the first read."),
    nan_until_measured(FEE_PAYER_RUNWAY_SECONDS, "How long the fee payer's balance lasts at the spending rate of the last hours, a year at most; 0 when it cannot pay another fee, NaN before this process has read it (from the database)."),
    by_endpoint(RPC_CALLS, Counter, "Calls to RPC endpoints by class (hot: minting waits for it; background), method and outcome: answered, error (an error as the answer), unreachable, rate_limited (too many calls), refused (another limit of the provider), held (not made because the endpoint had requested a pause)."),
    by_endpoint(RPC_CALL_SECONDS, Histogram, "Seconds from a request to an RPC endpoint until its answer or failure, by method."),
    by_endpoint(RPC_ENDPOINT_HEIGHT, Gauge, "Block height of the endpoint at its last answer."),
    by_endpoint(RPC_ENDPOINT_LAG_BLOCKS, Gauge, "Blocks by which the endpoint is below the highest height that any endpoint reported."),
    by_endpoint(RPC_ENDPOINT_HEALTHY, Gauge, "1 while the endpoint answers, is not behind, and has not requested a pause."),
    labelled(FEES_PAID_LAMPORTS, Counter, "kind", &["fee", "priority", "rent"], "Cost of confirmed mint transactions as it was booked: signatures, priority fee, rent of new token accounts."),
    labelled(FEES_MISBOOKED_LAMPORTS, Counter, "direction", &["more", "less"], "Lamports that the chain charged more or less for finalized mint transactions than was booked when they were recorded, fees and rent."),
    nan_until_measured(TOKEN_ACCOUNT_RENT_LAMPORTS, "Rent of a new token account, as the chain reported it last; NaN before."),
    nan_until_measured(SIGNATURE_FEE_LAMPORTS, "Base fee for one signature, as the chain reported it last; NaN before."),
    nan_until_measured(SLOT_SECONDS, "How long a slot lasts, measured over the last minutes; NaN before the first measurement."),
    nan_until_measured(BLOCKHASH_LIFE_SECONDS, "How long a blockhash lives: 150 blocks at their measured length; NaN before the first measurement."),
    labelled(CONSENSUS, Gauge, "consensus", CONSENSUSES, "1 for the consensus that the cluster runs, as the endpoints report it; unknown while none of them can."),
    by_endpoint(RPC_ENDPOINT_PROVES_DEATHS, Gauge, "1 when the endpoint shows the finalized blocks that prove that an expired transaction did not land; missing until it was probed."),
    plain(PRIORITY_FEE_MICROLAMPORTS, Gauge, "Price that this process offers for a compute unit, millionths of a lamport; 0 while it offers none."),
    plain(WEBSOCKET_ACTIVE, Gauge, "WebSocket connections that are open in this process."),
    plain(WEBSOCKET_CONNECTIONS, Counter, "WebSocket connections that were opened."),
    plain(WEBSOCKET_ERRORS, Counter, "WebSocket connections that ended because of an error or a violation by the client."),
    labelled(WEBSOCKET_CLOSES, Counter, "reason", CLOSE_REASONS, "WebSocket connections that ended, by the reason in docs/feed.md; gone: the client's connection broke, left: the client closed it, silent: the client stopped answering."),
    plain(SSE_ACTIVE, Gauge, "Streams of server-sent events that are open in this process."),
    plain(SSE_STREAMS, Counter, "Streams of server-sent events that were opened."),
    plain(STREAMS_REFUSED, Counter, "Streams of either kind that were refused because WEBSOCKET_MAX_CONNECTIONS were open."),
    plain(FEED_OVERFLOWS, Counter, "Times that WEBSOCKET_EVENT_BUFFER_SIZE events waited for one subscriber, which is then served from the log, or closed if its connection is blocked."),
    plain(OUTBOX_OLDEST_AGE_SECONDS, Gauge, "Age of the oldest event without a sequence number (from the database)."),
    plain(FEED_LAST_SEQ, Gauge, "Highest event number (from the database)."),
    plain(FEED_OLDEST_SEQ, Gauge, "Lowest event number that is still kept (from the database)."),
    plain(FEED_OLDEST_AGE_SECONDS, Gauge, "Age of the oldest event that is still kept; 0 when none is (from the database)."),
    plain(FEED_PARTITIONS, Gauge, "Partitions of the event log, including those prepared for future events (from the database)."),
    plain(FEED_PARTITIONS_DROPPED, Counter, "Partitions of the event log that this process dropped because all their events were older than FEED_RETENTION_DAYS."),
    plain(FEED_DELIVERY_SECONDS, Histogram, "Seconds from the writing of an event until this process passed it to its subscribers."),
    labelled(HTTP_REQUESTS, Counter, "status", STATUS_CLASSES, "HTTP answers by class of status; probes and scrapes are left out."),
    plain(HTTP_REQUEST_SECONDS, Histogram, "Seconds from a request's head to its answer's head; probes and scrapes are left out."),
    plain(PROCESS_START_TIME_SECONDS, Gauge, "Unix time at which this process started its metrics."),
    plain(PROCESS_CPU_MILLISECONDS, Counter, "Processor time of this process, user and system, milliseconds."),
    plain(PROCESS_RESIDENT_MEMORY_BYTES, Gauge, "Resident memory of this process, bytes."),
    plain(PROCESS_OPEN_FDS, Gauge, "File descriptors that this process has open, sockets included."),
    plain(PROCESS_MAX_FDS, Gauge, "File descriptors that this process may have open."),
    plain(RUNTIME_WORKERS, Gauge, "Threads that run this process' tasks."),
    plain(RUNTIME_ALIVE_TASKS, Gauge, "Tasks of this process that have not ended."),
    plain(RUNTIME_GLOBAL_QUEUE_TASKS, Gauge, "Tasks that are ready to run and wait for a thread."),
    plain(RUNTIME_BUSY_MILLISECONDS, Counter, "Busy time of all runtime threads together, milliseconds."),
    plain(DISK_FREE_BYTES, Gauge, "Bytes that are free on the disk of the data directory."),
    labelled(TRACE_SPANS, Counter, "outcome", &["exported", "failed", "dropped"], "Spans of this process by outcome: accepted by the collector, not accepted, or dropped because too many waited."),
    plain(CANARY_ENABLED, Gauge, "1 when this process monitors the canary."),
    plain(CANARY_AGE_SECONDS, Gauge, "How long ago the newest reading of the canary that was minted was accepted; 0 while none is expected because auto-mint is off (from the database)."),
    plain(CANARY_SECONDS, Histogram, "Seconds from the canary's query for its meter until its reading was minted; only in the process that sends its readings."),
    labelled(DATABASE_CONNECTIONS, Gauge, "state", &["in_use", "idle", "limit"], "Connections in this process' database pool, and their limit."),
    plain(DATABASE_ANSWERS, Gauge, "1 when the database answered this process within 2 s at this scrape."),
    plain(DATABASE_FIGURES_STALE, Gauge, "1 when the figures from the database could not be read at this scrape and are those of an earlier scrape."),
    labelled(BUILD_INFO, Gauge, "version", &[VERSION], "Always 1; the label contains the version, and after + the commit of the build."),
];
