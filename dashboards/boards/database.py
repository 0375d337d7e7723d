"""The database as the service sees it. Its own exporter covers disks, locks and replication."""

from .panels import GREEN, JOB, RED, YELLOW, board, each, first_steps, graph, mean, per_second, quantile, row, runbook, shared, stat, steps, to, words

INTAKE = 'coalescer="intake"'

SYMPTOM = row(
    "Does the database answer?",
    (4, stat(
        "Answers",
        "Share of the processes that got an answer of the database within 2 s at their last scrape.",
        f"sum (gridtokenx_database_answers{{{JOB}}}) / count (gridtokenx_database_answers{{{JOB}}})",
        unit="percentunit",
        thresholds=steps(RED, (0.01, YELLOW), (1, GREEN)),
        links=[runbook("DatabaseUnreachable")],
    )),
    (5, stat(
        "Database figures",
        "Stale: some process could not read its figures from the database within 2 s at its last scrape.",
        f"max (gridtokenx_database_figures_stale{{{JOB}}})",
        thresholds=steps(GREEN, (1, RED)),
        mappings=words(_0="current", _1="stale"),
        links=[runbook("DatabaseUnreachable")],
    )),
    (5, stat(
        "A commit waits, p99",
        "Seconds that a reading waits until its database transaction begins, for the slowest in a hundred of this time. Above INTAKE_LINGER_MS, commits wait for commits.",
        f'histogram_quantile(0.99, sum by (le) (increase({each("gridtokenx_coalescer_wait_duration_seconds_bucket", INTAKE)}[$__range])))',
        unit="s",
        thresholds=steps(GREEN, (0.1, YELLOW), (1, RED)),
        links=[to("api", "API")],
    )),
    (5, stat(
        "Oldest due job",
        "How long the oldest due job has been waiting: the queue lives in the database.",
        shared("gridtokenx_queue_oldest_due_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (10, YELLOW), (60, RED)),
        links=[to("queue", "Queue")],
    )),
    (5, stat(
        "Oldest event without number",
        "How long the oldest event has been waiting for its number: the outbox lives in the database.",
        shared("gridtokenx_outbox_oldest_event_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (10, YELLOW), (60, RED)),
        links=[to("feed", "Feed")],
    )),
)

WRITES = row(
    "Intake",
    (12, graph(
        "Commits and readings",
        "The intake's database transactions a second, and the readings in them.",
        [
            (per_second("gridtokenx_coalescer_batch_items_count", INTAKE), "commits"),
            (per_second("gridtokenx_coalescer_batch_items_sum", INTAKE), "readings"),
        ],
        unit="suffix: /s",
        links=[to("api", "API")],
    )),
    (12, graph(
        "Readings in a commit",
        "On average. It rises with the load up to INTAKE_BATCH_SIZE: that is how the cost of a commit is shared.",
        [(mean("gridtokenx_coalescer_batch_items", INTAKE), "readings")],
        unit="short",
        decimals=1,
        links=[to("api", "API"), runbook("HighErrorRate")],
    )),
    (12, graph(
        "Wait for a commit",
        "Seconds until a reading's transaction begins.",
        [
            (quantile(0.5, "gridtokenx_coalescer_wait_duration_seconds", INTAKE), "p50"),
            (quantile(0.99, "gridtokenx_coalescer_wait_duration_seconds", INTAKE), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("api", "API"), runbook("HighErrorRate")],
    )),
    (12, graph(
        "Stored after",
        "Seconds from a reading's arrival until it was stored with its job: the wait and the transaction itself.",
        [
            (quantile(0.5, "gridtokenx_reading_stage_duration_seconds", 'stage="stored"'), "p50"),
            (quantile(0.99, "gridtokenx_reading_stage_duration_seconds", 'stage="stored"'), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("api", "API")],
    )),
)

STATE = row(
    "Figures from the database",
    (12, graph(
        "Figures stale, by process",
        "1 while a process could not read its figures. One alone: its network or its pool. All: the database.",
        [(each("gridtokenx_database_figures_stale"), "{{instance}}")],
        unit="none",
        links=[runbook("HighErrorRate")],
    )),
    (12, graph(
        "Notifications, by process",
        "1 while notifications of the database reach the process. Without them work is found by polling, up to a second later.",
        [(each("gridtokenx_listener_connected"), "{{instance}}")],
        unit="none",
        links=[runbook("HighErrorRate")],
    )),
    (12, graph(
        "Listening connections replaced",
        "Within 10 minutes, by what was wrong: it ended, or it was open and heard nothing (a pooler in transaction mode, a network that forgets connections).",
        [(f'sum by (how) (increase({each("gridtokenx_listener_broken_total")}[10m]))', "{{how}}")],
        unit="short",
        decimals=0,
        links=[runbook("HighErrorRate")],
    )),
    (12, graph(
        "What waits",
        "Unminted readings and jobs: what the partial indexes of the hot paths hold.",
        [
            (shared("gridtokenx_unminted_readings_count"), "unminted readings"),
            (f'sum ({shared("gridtokenx_queue_jobs", "state!=" + chr(34) + "dead" + chr(34), "state")})', "jobs"),
        ],
        unit="short",
        links=[to("queue", "Queue")],
    )),
)

PROCESS = row(
    "Processes and their machines",
    (12, graph(
        "Connections",
        "Of each process' pool: in use, and open but idle. In use at the limit (DATABASE_MAX_CONNECTIONS): requests and jobs wait for a connection.",
        [
            (f'{each("gridtokenx_database_connections")}', "{{state}} {{instance}}"),
        ],
        unit="short",
        decimals=0,
        links=[to("api", "API")],
    )),
    (12, graph(
        "Free disk",
        "What is left on the disk of each process' data directory. Health is degraded below DISK_FREE_MIN_MB.",
        [(each("gridtokenx_disk_free_bytes"), "{{instance}}")],
        unit="bytes",
        links=[first_steps()],
    )),
    (8, graph(
        "Processor",
        "Processors that each process keeps busy.",
        [(f'rate({each("gridtokenx_process_cpu_milliseconds_total")}[$__rate_interval]) / 1000', "{{instance}}")],
        unit="short",
        decimals=2,
        links=[to("api", "API"), to("mint", "Mint & chain")],
    )),
    (8, graph(
        "Memory",
        "Resident memory of each process.",
        [(each("gridtokenx_process_resident_memory_bytes"), "{{instance}}")],
        unit="bytes",
        links=[to("feed", "Feed"), runbook("InstanceDown")],
    )),
    (8, graph(
        "Open files",
        "Descriptors of each process, sockets included, and how many it may open.",
        [
            (each("gridtokenx_process_open_fds"), "open {{instance}}"),
            (each("gridtokenx_process_max_fds"), "limit {{instance}}"),
        ],
        unit="short",
        decimals=0,
        logarithmic=True,
        links=[to("feed", "Feed"), runbook("WebSocketConnectionIssues")],
    )),
    (8, graph(
        "Tasks",
        "Tasks that are alive, and those that wait for any worker thread. A queue that stays means too few processors, or a task that blocks.",
        [
            (each("gridtokenx_runtime_alive_tasks"), "alive {{instance}}"),
            (each("gridtokenx_runtime_global_queue_tasks"), "waiting {{instance}}"),
        ],
        unit="short",
        decimals=0,
        links=[to("api", "API"), to("queue", "Queue")],
    )),
    (8, graph(
        "Worker threads busy",
        "Share of the time in which the runtime's worker threads ran tasks.",
        [(f'rate({each("gridtokenx_runtime_busy_milliseconds_total")}[$__rate_interval]) / 1000 / {each("gridtokenx_runtime_workers")}', "{{instance}}")],
        unit="percentunit",
        links=[to("api", "API"), to("queue", "Queue")],
    )),
    (8, graph(
        "Started",
        "Age of each process.",
        [(f'time() - {each("gridtokenx_process_start_time_seconds")}', "{{instance}}")],
        unit="s",
        links=[runbook("InstanceDown")],
    )),
    (24, graph(
        "Spans of traces",
        "A second, by what became of them. Failed: the collector did not take them. Dropped: more waited than may. Neither holds up a reading.",
        [(per_second("gridtokenx_trace_spans_total", by="outcome"), "{{outcome}}")],
        unit="suffix: /s",
        links=[to("api", "API"), to("mint", "Mint & chain")],
    )),
)

BOARD = board("database", "Database", "The database as the service sees it. Its own exporter covers disks, locks and replication.", [SYMPTOM, WRITES, STATE, PROCESS])
