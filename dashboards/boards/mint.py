"""Minting and the chain: refusals, transactions, endpoints, fee payer, ledger."""

from .panels import GREEN, INSTANCE, JOB, RED, YELLOW, board, each, graph, in_range, mean, not_known, per_second, quantile, row, runbook, shared, stat, steps, to, words

STAGE = "gridtokenx_reading_stage_duration_seconds"

SYMPTOM = row(
    "Is what is accepted minted?",
    (4, stat(
        "Minted within 5 minutes",
        "Share of the readings of this time that were minted within 5 minutes of their acceptance; held and failed ones are left out.",
        f'sum (increase(gridtokenx_mint_promises_total{{{JOB}, outcome="kept"}}[$__range])) / (sum (increase(gridtokenx_mint_promises_total{{{JOB}}}[$__range])) + {shared("gridtokenx_overdue_readings_count")})',
        unit="percentunit",
        decimals=2,
        thresholds=steps(RED, (0.99, YELLOW), (0.995, GREEN)),
        links=[to("queue", "Queue"), runbook("MintedInTimeBudgetBurn")],
    )),
    (4, stat(
        "Refused attempts",
        "Attempts of this time that preflight, simulation or the chain refused: something about the reading's wallet is wrong.",
        in_range("gridtokenx_token_minting_failures_total"),
        unit="short",
        decimals=0,
        thresholds=steps(GREEN, (0.5, YELLOW)),
        links=[runbook("TokenMintingFailures")],
    )),
    (4, stat(
        "Ledger against chain",
        "Landed mints of our authority that the ledger lacks and that are not resolved.",
        shared("gridtokenx_ledger_mismatches"),
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="agree"),
        links=[runbook("LedgerMismatch")],
    )),
    (4, stat(
        "Ledger breaker",
        "Open: nothing new is signed by any process.",
        shared("gridtokenx_ledger_breaker_open"),
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="closed", _1="open"),
        links=[runbook("LedgerMismatch")],
    )),
    (4, stat(
        "Chain",
        "Whether every process can mint: a useful endpoint, a fee payer with money, our mint. `GET /health/ready` says what is missing.",
        f"max (gridtokenx_chain_breaker_open{{{JOB}}})",
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="can mint", _1="cannot mint"),
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (4, stat(
        "Fee payer lasts",
        "How long the fee payer's balance lasts at the present rate of spending; 0 when it cannot pay another fee.",
        f"min (gridtokenx_fee_payer_runway_seconds{{{JOB}}})",
        unit="s",
        thresholds=steps(RED, (14400, YELLOW), (172800, GREEN)),
        mappings=not_known(),
        links=[runbook("FeePayerRunwayLow")],
    )),
)

FLOW = row(
    "Readings and transactions",
    (12, graph(
        "Readings minted and refused",
        "Readings whose mint was confirmed, and refused attempts, a second.",
        [
            (per_second("gridtokenx_token_minting_successes_total"), "minted"),
            (per_second("gridtokenx_token_minting_failures_total"), "refused attempts"),
            (per_second("gridtokenx_mint_promises_total", 'outcome="late"'), "minted late (over 5 min)"),
        ],
        unit="suffix: /s",
        links=[to("queue", "Queue"), runbook("TokenMintingFailures")],
    )),
    (12, graph(
        "Mint transactions by outcome",
        "Recorded, confirmed and finalized follow each other. Dead: expired or failed on chain, its readings are minted again. Forked: vanished before finality, the same bytes are sent again. Quarantined: no endpoint can prove its outcome.",
        [(per_second("gridtokenx_mint_transactions_total", by="outcome"), "{{outcome}}")],
        unit="suffix: /s",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "From acceptance to the chain, p50 and p99",
        "Signed to sent is the database and the endpoint; sent to confirmed is the chain, 1 to 2 slots; confirmed to finalized is a few seconds, under Alpenglow nothing.",
        [
            (quantile(share, STAGE, f'stage="{stage}"'), f"{stage} {name}")
            for stage in ("signed", "sent", "confirmed", "finalized")
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ],
        unit="s",
        logarithmic=True,
        links=[to("queue", "Queue")],
    )),
    (12, graph(
        "Readings in a transaction",
        "Confirmed readings divided by confirmed transactions. About 60 wallets fit in a v1 transaction and 19 in a legacy one, fewer when their token accounts must be made; readings of one wallet are one payment. Few under load: raise MINT_LINGER_MS.",
        [(f'{per_second("gridtokenx_token_minting_successes_total")} / {per_second("gridtokenx_mint_transactions_total", "outcome=" + chr(34) + "confirmed" + chr(34))}', "readings")],
        unit="short",
        decimals=1,
        links=[to("queue", "Queue"), runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Bytes of a transaction",
        "A v1 transaction holds 4,096, a legacy one 1,232. Full transactions share their fee among the most readings.",
        [
            (mean("gridtokenx_mint_transaction_size_bytes"), "mean"),
            (quantile(0.99, "gridtokenx_mint_transaction_size_bytes"), "p99"),
        ],
        unit="bytes",
        links=[to("queue", "Queue"), runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Recorded transactions by format",
        "v1 where the RPC endpoint takes it. Legacy ones pay a third of the readings for the same fee: the status names the endpoint that refuses v1.",
        [(per_second("gridtokenx_mint_transaction_formats_total", by="format"), "{{format}}")],
        unit="suffix: /s",
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Readings in a recorded transaction",
        "How full transactions are when they are signed, and the token accounts that they make, on average.",
        [
            (quantile(0.5, "gridtokenx_mint_transaction_readings"), "readings, p50"),
            (quantile(0.99, "gridtokenx_mint_transaction_readings"), "readings, p99"),
            (f'{per_second("gridtokenx_token_account_creations_total")} / {per_second("gridtokenx_mint_transactions_total", "outcome=" + chr(34) + "recorded" + chr(34))}', "token accounts made"),
        ],
        unit="short",
        decimals=1,
        links=[to("queue", "Queue"), runbook("FeePayerRunwayLow")],
    )),
)

WORK = row(
    "The minter",
    (12, graph(
        "A batch takes",
        "Seconds from packing to the last send: two calls of the chain, simulation, one commit, the sends. Seconds mean a slow endpoint.",
        [
            (quantile(0.5, "gridtokenx_batch_processing_duration_seconds"), "p50"),
            (quantile(0.99, "gridtokenx_batch_processing_duration_seconds"), "p99"),
            (mean("gridtokenx_batch_processing_duration_seconds"), "mean"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("database", "Database"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (12, graph(
        "Batches",
        "Readings in a batch on average.",
        [(mean("gridtokenx_coalescer_batch_items", 'coalescer="mint"'), "readings in a batch")],
        unit="short",
        decimals=1,
        links=[to("queue", "Queue"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (12, graph(
        "Tokens minted",
        "Base units confirmed on chain, a second (1 token = 10^decimals base units).",
        [(per_second("gridtokenx_tokens_minted_total"), "base units")],
        unit="suffix: /s",
        links=[to("queue", "Queue"), runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Wait for the minter",
        "How long readings wait until their batch leaves. Above MINT_LINGER_MS, all BLOCKCHAIN_CONCURRENT_BATCHES are under way.",
        [
            (quantile(0.5, "gridtokenx_coalescer_wait_duration_seconds", 'coalescer="mint"'), "p50"),
            (quantile(0.99, "gridtokenx_coalescer_wait_duration_seconds", 'coalescer="mint"'), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("queue", "Queue"), runbook("HighUnmintedReadingsBacklog")],
    )),
)

CHAIN = row(
    "Chain and money",
    (12, graph(
        "Cannot mint because of the chain, by process",
        "1 while a process does not mint because of the chain. One process alone: its network. All: the endpoints, or the fee payer.",
        [(each("gridtokenx_chain_breaker_open"), "{{instance}}")],
        unit="none",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Fee payer's balance",
        "As each process saw it last; nothing before the first read. What a signature and a new token account cost is below.",
        [(each("gridtokenx_fee_payer_balance_lamports"), "{{instance}}")],
        unit="suffix: lamports",
        thresholds=steps("transparent", (5000000, RED)),
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Fee payer lasts",
        "The balance divided by the present rate of spending, a year at most; 0 when it cannot pay another fee, nothing before the first read.",
        [(each("gridtokenx_fee_payer_runway_seconds"), "{{instance}}")],
        unit="s",
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Lamports spent",
        "What confirmed transactions cost a second: fee (signatures), priority fee, rent of new token accounts. And all of it for each minted reading.",
        [
            (per_second("gridtokenx_fees_paid_lamports_total", by="kind"), "{{kind}} a second"),
            (f'{per_second("gridtokenx_fees_paid_lamports_total")} / {per_second("gridtokenx_token_minting_successes_total")}', "a reading"),
        ],
        unit="suffix: lamports",
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "The chain's charges",
        "Base fee for a signature and rent of a new token account, as the chain reported them last. A change moves what a reading costs.",
        [
            ("max(%s)" % each("gridtokenx_signature_fee_lamports"), "signature"),
            ("max(%s)" % each("gridtokenx_token_account_rent_lamports"), "new token account"),
        ],
        unit="suffix: lamports",
        logarithmic=True,
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Charged and not booked",
        "What the chain charged more or less for finalized transactions than was booked when they were recorded, a second. Two transactions that create the same account book its rent twice.",
        [(per_second("gridtokenx_fees_misbooked_lamports_total", by="direction"), "{{direction}}")],
        unit="suffix: lamports",
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Priority fee offered, by process",
        "What the next transaction offers for a compute unit, in millionths of a lamport (BLOCKCHAIN_PRIORITY_FEE, never above its cap). 0: nothing.",
        [(each("gridtokenx_priority_fee_microlamports"), "{{instance}}")],
        unit="none",
        links=[runbook("FeePayerRunwayLow")],
    )),
    (12, graph(
        "Unknown mints and breaker",
        "Landed mints of our authority that the ledger lacks, and whether the ledger breaker is open.",
        [(shared("gridtokenx_ledger_mismatches"), "unknown mints"), (shared("gridtokenx_ledger_breaker_open"), "breaker open")],
        unit="none",
        links=[runbook("LedgerMismatch")],
    )),
    (12, graph(
        "Expired transactions without proof",
        "Expired mint transactions that are neither found on chain nor proven dead, and the runs of finalized blocks that are kept to prove it.",
        [(shared("gridtokenx_unproven_transactions_count"), "transactions"), (shared("gridtokenx_scanned_runs_count"), "runs of blocks")],
        unit="short",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Oldest transaction without proof",
        "How long ago the oldest of them expired.",
        [(shared("gridtokenx_oldest_unproven_transaction_age_seconds"), "age")],
        unit="s",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Blocks read for proofs, by process",
        "While it is above zero, the search for proofs goes on.",
        [(per_second("gridtokenx_proof_blocks_read_total", by="instance"), "{{instance}}")],
        unit="ops",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Without proof",
        "Quarantined readings: no endpoint could prove for LEDGER_QUARANTINE_AFTER_SECS what became of their transaction. Failed readings wait for a person.",
        [(shared("gridtokenx_readings_by_state", 'state=~"quarantined|failed"', "state"), "{{state}}")],
        unit="short",
        links=[runbook("OldestUnmintedReadingTooOld"), runbook("TokenMintingFailures")],
    )),
    (12, graph(
        "Age of the history scan",
        "How long ago the last whole scan of the authority's history began, and how long ago it finished. It begins once a minute; GET /api/admin/tokenization/status says how far one is and why it stopped.",
        [
            (shared("gridtokenx_history_scan_watermark_age_seconds"), "since it began"),
            (f'time() - ({shared("gridtokenx_history_scan_last_success_timestamp_seconds")} > 0)', "since it finished"),
        ],
        unit="s",
        links=[runbook("HistoryScanStale")],
    )),
    (12, graph(
        "Stops of the history scan",
        "Times a second that a scan stopped before its end, by how: paused by an endpoint's limit, or failed; and transactions that no endpoint shows in a form that this program can read.",
        [
            (per_second("gridtokenx_history_scan_stops_total", by="how"), "{{how}}"),
            (shared("gridtokenx_history_scan_unreadable_transactions"), "unreadable transactions"),
        ],
        unit="none",
        links=[runbook("HistoryScanStale")],
    )),
)

ENDPOINTS = row(
    "RPC endpoints",
    (12, graph(
        "Slot and blockhash",
        "How long a slot lasts and how long a blockhash lives (150 blocks), measured. A transaction that has not landed by then is proven dead and its readings are minted anew.",
        [
            ("max(%s)" % each("gridtokenx_slot_seconds"), "slot"),
            ("max(%s)" % each("gridtokenx_blockhash_life_seconds"), "blockhash"),
        ],
        unit="s",
        logarithmic=True,
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Consensus",
        "Which consensus the cluster runs, as its endpoints report it: 1 for the one that it runs. Under Alpenglow, what is confirmed is final.",
        [(f"max by (consensus) ({each('gridtokenx_consensus')})", "{{consensus}}")],
        unit="none",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Calls by outcome",
        "Calls to all endpoints a second. Answered; error: an answer that is one; unreachable; rate_limited: too many calls; refused: another limit of the provider; held: not made, the endpoint had asked for a pause.",
        [(per_second("gridtokenx_rpc_calls_total", by="outcome"), "{{outcome}}")],
        unit="suffix: /s",
        stacked=True,
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Calls that were not answered",
        "By endpoint and outcome, a second. Endpoints are named in the order of SOLANA_RPC_URL: rpc-1 is the first.",
        [(per_second("gridtokenx_rpc_calls_total", 'outcome!="answered"', "endpoint, outcome"), "{{endpoint}} {{outcome}}")],
        unit="suffix: /s",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Calls by method",
        "What the calls are for, a second: sends and status queries grow with the readings; getBlock and getBlocks with what must be proven.",
        [(per_second("gridtokenx_rpc_calls_total", by="method"), "{{method}}")],
        unit="suffix: /s",
        links=[to("queue", "Queue"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (12, graph(
        "An answer takes, p99",
        "By method, over all endpoints: seconds from a call until its answer, or until it failed. It ends at TOKENIZATION_TRANSACTION_TIMEOUT_SECS.",
        [(quantile(0.99, "gridtokenx_rpc_call_duration_seconds", by="method"), "{{method}}")],
        unit="s",
        logarithmic=True,
        links=[runbook("HighUnmintedReadingsBacklog"), runbook("MintedInTimeBudgetBurn")],
    )),
    (12, graph(
        "An answer takes, by endpoint",
        "Half of the answers are faster than this: the endpoint that is slow, and its network.",
        [(quantile(0.5, "gridtokenx_rpc_call_duration_seconds", by="endpoint"), "{{endpoint}}")],
        unit="s",
        logarithmic=True,
        links=[runbook("HighUnmintedReadingsBacklog"), runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Blocks behind",
        "How far each endpoint is below the highest height that any reported, as its worst process sees it. One that lags is asked last.",
        [(f"max by (endpoint) ({each('gridtokenx_rpc_endpoint_lag_blocks')})", "{{endpoint}}")],
        unit="suffix: blocks",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Endpoints of use",
        "1 while every process finds the endpoint answering, not behind, and not asking for a pause.",
        [(f"min by (endpoint) ({each('gridtokenx_rpc_endpoint_healthy')})", "{{endpoint}}")],
        unit="none",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
    (12, graph(
        "Endpoints that prove deaths",
        "1 while the endpoint shows the finalized blocks that prove that an expired transaction did not land, as any process found. One such endpoint is enough.",
        [(f"max by (endpoint) ({each('gridtokenx_rpc_endpoint_proves_deaths')})", "{{endpoint}}")],
        unit="none",
        links=[runbook("NoEndpointProvesDeaths")],
    )),
    (12, graph(
        "Calls by budget",
        "A second. Hot: minting waits for it. Background: proofs, history, audit and look-ups, paced by RPC_BACKGROUND_CALLS_PER_SECOND.",
        [(per_second("gridtokenx_rpc_calls_total", by="class"), "{{class}}")],
        unit="suffix: /s",
        stacked=True,
        links=[runbook("NoEndpointProvesDeaths")],
    )),
    (12, graph(
        "Blocks a second",
        "How fast the height of each endpoint rises. Solana makes about 2.5 blocks a second.",
        [(f"max by (endpoint) (deriv(gridtokenx_rpc_endpoint_height{{{INSTANCE}}}[$__rate_interval]))", "{{endpoint}}")],
        unit="suffix: /s",
        links=[runbook("OldestUnmintedReadingTooOld")],
    )),
)

BOARD = board("mint", "Mint & chain", "Minting and the chain: refusals, transactions, endpoints, fee payer, ledger.", [SYMPTOM, FLOW, WORK, CHAIN, ENDPOINTS])
