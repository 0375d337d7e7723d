"""Is it healthy, is money flowing, how old is the oldest unminted reading, does the audit hold."""

from .panels import GREEN, JOB, RED, YELLOW, board, each, graph, in_range, not_known, per_second, quantile, row, runbook, shared, stat, steps, table, to, words

HEALTH = row(
    "Is it healthy?",
    (6, stat(
        "Alerts firing",
        "Alerts of this deployment that fire now. Their names are in the table below; each has a section in the runbooks.",
        f'count(ALERTS{{service="gridtokenx", {JOB}, alertstate="firing"}}) or vector(0)',
        thresholds=steps(GREEN, (1, RED)),
        links=[to("runbooks", "All runbooks")],
    )),
    (6, stat(
        "Oldest unminted reading",
        "How long the oldest reading has been waiting to be minted. Held and failed readings wait for a person and are left out. Minutes mean that the chain or the queue stands still.",
        shared("gridtokenx_oldest_unminted_reading_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (300, YELLOW), (2700, RED)),
        links=[to("queue", "Queue"), runbook("OldestUnmintedReadingTooOld")],
    )),
    (6, stat(
        "Ledger against chain",
        "Landed mints of our authority that the ledger lacks and that are not resolved. The chain's history is scanned once a minute: anything but 0 means that tokens exist without a reading.",
        shared("gridtokenx_ledger_mismatches"),
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="agree"),
        links=[to("mint", "Mint & chain"), runbook("LedgerMismatch")],
    )),
    (6, stat(
        "Ledger breaker",
        "Open: nothing new is signed. After a restore or fail-over it closes by itself within minutes; after a mismatch only once a person has dealt with it.",
        shared("gridtokenx_ledger_breaker_open"),
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="closed", _1="open"),
        links=[to("mint", "Mint & chain"), runbook("LedgerMismatch")],
    )),
    (6, stat(
        "Last audit",
        "Differences between ledger and chain that the last recorded audit found (gridtokenx audit --record, once a day): each mint of our authority against the readings that it pays.",
        shared("gridtokenx_audit_differences"),
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="holds") + not_known("none yet"),
        links=[to("mint", "Mint & chain"), runbook("AuditFailed")],
    )),
    (6, stat(
        "Since the last audit",
        "How long ago the last recorded audit came to its verdict. No data: none was ever recorded.",
        f'time() - ({shared("gridtokenx_audit_last_finished_timestamp_seconds")} > 0)',
        unit="s",
        thresholds=steps(GREEN, (93600, RED)),
        links=[runbook("AuditStale")],
    )),
    (6, stat(
        "Chain",
        "Whether every process can mint: a useful endpoint, a fee payer with money, our mint. Readings are accepted all the same and minted later.",
        f"max (gridtokenx_chain_breaker_open{{{JOB}}})",
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="can mint", _1="cannot mint"),
        links=[to("mint", "Mint & chain"), runbook("OldestUnmintedReadingTooOld")],
    )),
    (6, stat(
        "Processes up",
        "Processes of this deployment that Prometheus could scrape.",
        f"sum (up{{{JOB}}})",
        thresholds=steps(RED, (1, GREEN)),
        links=[runbook("InstanceDown")],
    )),
)

MONEY = row(
    "Is money flowing?",
    (6, stat(
        "Canary",
        "How long ago the newest reading of the service's own meter that was minted was accepted. It reports every minute; 0 while it is off, or auto-mint is.",
        f"min ({each('gridtokenx_canary_age_seconds')} unless {each('gridtokenx_canary_enabled')} == 0) or vector(0)",
        unit="s",
        thresholds=steps(GREEN, (180, YELLOW), (300, RED)),
        links=[runbook("CanarySilent")],
    )),
    (9, graph(
        "Canary, by process",
        "The age as each process read it from the database. One that grows alone is cut off from the database; while all grow, readings are not minted.",
        [
            (each("gridtokenx_canary_age_seconds"), "{{instance}}"),
        ],
        unit="s",
        links=[runbook("CanarySilent")],
    )),
    (9, graph(
        "Canary, the whole way",
        "Seconds from the query for its meter until its reading was minted: what a user's single reading takes.",
        [
            (quantile(0.5, "gridtokenx_canary_duration_seconds"), "p50"),
            (quantile(0.99, "gridtokenx_canary_duration_seconds"), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[runbook("CanarySilent")],
    )),
    (8, graph(
        "Readings accepted and minted",
        "Accepted readings and readings whose mint was confirmed, a second. The two curves follow each other within seconds; a gap that stays is a backlog.",
        [
            (per_second("gridtokenx_meter_readings_processed_total"), "accepted"),
            (per_second("gridtokenx_token_minting_successes_total"), "minted"),
            (per_second("gridtokenx_token_minting_failures_total"), "refused attempts"),
        ],
        unit="suffix: /s",
        links=[to("mint", "Mint & chain"), runbook("TokenMintingFailures")],
    )),
    (8, graph(
        "Unminted readings",
        "Accepted readings that are not minted: waiting for the service, held by the toggle or the roll-out, failed, quarantined. Only those that wait raise alerts.",
        [
            (shared("gridtokenx_unminted_readings_count"), "all unminted"),
            (shared("gridtokenx_held_readings_count"), "held"),
            (shared("gridtokenx_overdue_readings_count"), "overdue (5 min)"),
            (shared("gridtokenx_readings_by_state", 'state=~"failed|quarantined"', "state"), "{{state}}"),
        ],
        unit="short",
        links=[to("queue", "Queue"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (8, graph(
        "From acceptance to the chain",
        "How long readings took until their mint was confirmed and until it was finalized. Confirmed is a few slots, finalized a few seconds later, under Alpenglow at once.",
        [
            (quantile(0.5, "gridtokenx_reading_stage_duration_seconds", 'stage="confirmed"'), "confirmed p50"),
            (quantile(0.99, "gridtokenx_reading_stage_duration_seconds", 'stage="confirmed"'), "confirmed p99"),
            (quantile(0.5, "gridtokenx_reading_stage_duration_seconds", 'stage="finalized"'), "finalized p50"),
            (quantile(0.99, "gridtokenx_reading_stage_duration_seconds", 'stage="finalized"'), "finalized p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("mint", "Mint & chain"), runbook("MintedInTimeBudgetBurn")],
    )),
    (6, stat(
        "Fee payer lasts",
        "How long the fee payer's balance lasts at the present rate of spending; 0 when it cannot pay another fee.",
        f"min (gridtokenx_fee_payer_runway_seconds{{{JOB}}})",
        unit="s",
        thresholds=steps(RED, (14400, YELLOW), (172800, GREEN)),
        mappings=not_known(),
        links=[to("mint", "Mint & chain"), runbook("FeePayerRunwayLow")],
    )),
    (6, stat(
        "Minted in this time",
        "Base units confirmed on chain in the time that the board shows (1 token = 10^decimals base units).",
        in_range("gridtokenx_tokens_minted_total"),
        unit="short",
        links=[to("mint", "Mint & chain")],
    )),
    (6, stat(
        "Events without number",
        "Age of the oldest event that the sequencer has not numbered: what listeners of the feed lag behind by.",
        shared("gridtokenx_outbox_oldest_event_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (10, YELLOW), (60, RED)),
        links=[to("feed", "Feed")],
    )),
    (6, stat(
        "Database figures",
        "Whether the figures from the database could be read at the last scrapes. Stale: the database does not answer some process.",
        f"max (gridtokenx_database_figures_stale{{{JOB}}})",
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="current", _1="stale"),
        links=[to("database", "Database"), runbook("DatabaseUnreachable")],
    )),
)

LEVELS = row(
    "Service levels, over the time shown (they are promised over 30 days)",
    (6, stat(
        "Minted within 5 minutes",
        "Share of the readings of this time that were minted within 5 minutes of their acceptance. The level is 99.5 %. Held and failed readings are left out.",
        f'sum (increase(gridtokenx_mint_promises_total{{{JOB}, outcome="kept"}}[$__range])) / (sum (increase(gridtokenx_mint_promises_total{{{JOB}}}[$__range])) + {shared("gridtokenx_overdue_readings_count")})',
        unit="percentunit",
        decimals=2,
        thresholds=steps(RED, (0.99, YELLOW), (0.995, GREEN)),
        height=8,
        links=[to("mint", "Mint & chain"), runbook("MintedInTimeBudgetBurn")],
    )),
    (6, stat(
        "API answered",
        "Share of the API requests of this time that were answered with anything but 5xx. The level is 99.9 %.",
        f'1 - sum (increase(gridtokenx_http_requests_total{{{JOB}, status="5xx"}}[$__range])) / sum (increase(gridtokenx_http_requests_total{{{JOB}}}[$__range]))',
        unit="percentunit",
        decimals=3,
        thresholds=steps(RED, (0.995, YELLOW), (0.999, GREEN)),
        height=8,
        links=[to("api", "API"), runbook("ApiAvailabilityBudgetBurn")],
    )),
    (12, graph(
        "Burn rates",
        "How many times faster than its level allows each budget is used, over an hour. At 14.4 the budget of 30 days is gone in two days: there the fast alerts fire. Needs the recording rules.",
        [
            (f"gridtokenx:readings_late:ratio1h{{{JOB}}} / 0.005", "minted within 5 minutes"),
            (f"gridtokenx:http_errors:ratio_rate1h{{{JOB}}} / 0.001", "API answered"),
        ],
        unit="suffix: x",
        thresholds=steps("transparent", (6, YELLOW), (14.4, RED)),
        links=[runbook("MintedInTimeBudgetBurn"), runbook("ApiAvailabilityBudgetBurn")],
    )),
)

DETAIL = row(
    "Who is there",
    (12, table(
        "Alerts",
        "Alerts of this deployment that are pending or firing.",
        f'ALERTS{{service="gridtokenx", {JOB}}}',
        links=[to("runbooks", "All runbooks")],
        hide=("__name__", "job", "service", "Value"),
    )),
    (12, table(
        "Processes",
        "Processes of this deployment and their versions. Two versions side by side are normal during an upgrade.",
        each("gridtokenx_build_info"),
        hide=("__name__", "job", "Value"),
        links=[to("database", "Database"), runbook("InstanceDown")],
    )),
)

BOARD = board(
    "overview",
    "Overview",
    "Is it healthy, is money flowing, how old is the oldest unminted reading, does the audit hold.",
    [HEALTH, MONEY, LEVELS, DETAIL],
)
