"""Why readings wait: jobs, workers, sweeps."""

from .panels import GREEN, JOB, RED, YELLOW, board, each, graph, mean, per_second, quantile, row, runbook, shared, stat, steps, to

STAGE = "gridtokenx_reading_stage_duration_seconds"

SYMPTOM = row(
    "Do readings wait?",
    (6, stat(
        "Oldest unminted reading",
        "How long the oldest reading has been waiting to be minted; held and failed ones are left out.",
        shared("gridtokenx_oldest_unminted_reading_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (300, YELLOW), (2700, RED)),
        links=[to("mint", "Mint & chain"), runbook("OldestUnmintedReadingTooOld")],
    )),
    (6, stat(
        "Oldest due job",
        "How long the oldest due job has been waiting for a worker. Jobs are taken within milliseconds: seconds mean that no worker runs or that all are busy.",
        shared("gridtokenx_queue_oldest_due_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (10, YELLOW), (60, RED)),
        links=[to("database", "Database"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (6, stat(
        "Last sweep finished",
        "Time since any process finished a sweep (every TOKENIZATION_POLLING_INTERVAL_SECS). Sweeps find readings whose job was lost.",
        f"time() - max (gridtokenx_sweep_last_finished_timestamp_seconds{{{JOB}}} > 0)",
        unit="s",
        thresholds=steps(GREEN, (120, YELLOW), (180, RED)),
        links=[runbook("SweepNotRunning")],
    )),
    (6, stat(
        "Overdue readings",
        "Readings that wait for longer than 5 minutes, held and failed ones left out.",
        shared("gridtokenx_overdue_readings_count"),
        unit="short",
        thresholds=steps(GREEN, (1, YELLOW), (100, RED)),
        links=[runbook("MintedInTimeBudgetBurn")],
    )),
)

DEPTH = row(
    "What waits, and for what?",
    (12, graph(
        "Unminted readings by state",
        "Pending: no live transaction pays it. Submitted: its transaction's fate is not known yet. Failed: waits for a person. Quarantined: no endpoint can prove its fate.",
        [(shared("gridtokenx_readings_by_state", by="state"), "{{state}}"), (shared("gridtokenx_held_readings_count"), "held (part of pending)")],
        unit="short",
        links=[to("mint", "Mint & chain"), runbook("HighUnmintedReadingsBacklog")],
    )),
    (12, graph(
        "Jobs by state",
        "Jobs that no worker has taken: due now, scheduled for a later moment (a retry of a refused reading), or to be run again after an error; running ones, which one has; and dead ones, which can never be run and are kept for a week.",
        [(shared("gridtokenx_queue_jobs", by="state"), "{{state}}")],
        unit="short",
        links=[runbook("HighUnmintedReadingsBacklog")],
    )),
    (12, graph(
        "Ages",
        "Age of the oldest unminted reading, of the oldest due job, time since the last sweep, and how long ago the job was taken that has been with a worker for longest: minutes mean that its worker hangs.",
        [
            (shared("gridtokenx_oldest_unminted_reading_age_seconds"), "oldest unminted reading"),
            (shared("gridtokenx_queue_oldest_due_age_seconds"), "oldest due job"),
            (shared("gridtokenx_queue_oldest_running_age_seconds"), "longest with a worker"),
            (f"time() - max (gridtokenx_sweep_last_finished_timestamp_seconds{{{JOB}}} > 0)", "since the last sweep"),
        ],
        unit="s",
        links=[runbook("OldestUnmintedReadingTooOld"), runbook("SweepNotRunning")],
    )),
    (12, graph(
        "In and out",
        "Readings accepted, minted and refused, a second. The backlog grows while the first curve is above the second.",
        [
            (per_second("gridtokenx_meter_readings_processed_total"), "accepted"),
            (per_second("gridtokenx_token_minting_successes_total"), "minted"),
            (per_second("gridtokenx_token_minting_failures_total"), "refused attempts"),
        ],
        unit="suffix: /s",
        links=[to("mint", "Mint & chain")],
    )),
)

CAUSE = row(
    "Where does the time go?",
    (12, graph(
        "Time from acceptance to each stage, p50",
        "Stored and queued: the intake's commit. Picked: a worker took the job. Signed, sent: the minter. Confirmed, finalized: the chain. Delivered: the feed. The stage where a curve leaves the one before is the slow one.",
        [(quantile(0.5, STAGE, by="stage"), "{{stage}}")],
        unit="s",
        logarithmic=True,
        links=[to("mint", "Mint & chain"), to("database", "Database")],
    )),
    (12, graph(
        "Time from acceptance to each stage, p99",
        "The same for the slowest reading in a hundred.",
        [(quantile(0.99, STAGE, by="stage"), "{{stage}}")],
        unit="s",
        logarithmic=True,
        links=[to("mint", "Mint & chain"), to("database", "Database")],
    )),
    (12, graph(
        "Batch wait",
        "How long calls wait until their batch leaves: the intake in front of the database, the minter in front of the chain. Above the linger (2 ms, 20 ms), batches wait for batches.",
        [
            (quantile(0.5, "gridtokenx_coalescer_wait_duration_seconds", by="coalescer"), "{{coalescer}} p50"),
            (quantile(0.99, "gridtokenx_coalescer_wait_duration_seconds", by="coalescer"), "{{coalescer}} p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("mint", "Mint & chain"), to("database", "Database")],
    )),
    (12, graph(
        "Items in a batch",
        "How many calls leave together, on average.",
        [(mean("gridtokenx_coalescer_batch_items", by="coalescer"), "{{coalescer}}")],
        unit="short",
        links=[to("mint", "Mint & chain")],
    )),
    (12, graph(
        "Attempts that a reading needed",
        "On average, of the readings whose mint was confirmed: 1 when none was refused before. Outages, overload and expiry use no attempt.",
        [(mean("gridtokenx_reading_mint_attempts"), "attempts")],
        unit="short",
        decimals=2,
        links=[to("mint", "Mint & chain"), runbook("TokenMintingFailures")],
    )),
    (12, graph(
        "Jobs that can never be run",
        "Jobs found dead within 10 minutes, by cause: another program wrote into the queue's table, or a version writes what another cannot read. Their readings are found by the next sweep.",
        [(f'sum by (cause) (increase({each("gridtokenx_queue_dead_jobs_total")}[10m]))', "{{cause}}")],
        unit="short",
        decimals=0,
        links=[runbook("SweepNotRunning")],
    )),
    (12, graph(
        "Sweep by process",
        "Unix time at which each process last finished a sweep, as seconds ago. One process takes each sweep, so one curve near zero is enough.",
        [(f'time() - ({each("gridtokenx_sweep_last_finished_timestamp_seconds")} > 0)', "{{instance}}")],
        unit="s",
        links=[runbook("SweepNotRunning")],
    )),
)

BOARD = board("queue", "Queue", "Why readings wait: jobs, workers, sweeps.", [SYMPTOM, DEPTH, CAUSE])
