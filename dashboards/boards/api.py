"""HTTP: requests, errors, latency, what is refused."""

from .panels import GREEN, JOB, RED, YELLOW, board, graph, in_range, mean, per_second, quantile, row, runbook, stat, steps, to

REQUESTS = "gridtokenx_http_requests_total"

SYMPTOM = row(
    "Are requests answered?",
    (6, stat(
        "API answered",
        "Share of the API requests of this time that were answered with anything but 5xx. The level is 99.9 %.",
        f'1 - sum (increase({REQUESTS}{{{JOB}, status="5xx"}}[$__range])) / sum (increase({REQUESTS}{{{JOB}}}[$__range]))',
        unit="percentunit",
        decimals=3,
        thresholds=steps(RED, (0.995, YELLOW), (0.999, GREEN)),
        links=[runbook("ApiAvailabilityBudgetBurn")],
    )),
    (6, stat(
        "Failed requests",
        "Requests of this time that were answered with 5xx.",
        in_range(REQUESTS, 'status="5xx"'),
        unit="short",
        decimals=0,
        thresholds=steps(GREEN, (1, YELLOW), (100, RED)),
        links=[to("database", "Database"), runbook("HighErrorRate")],
    )),
    (6, stat(
        "Answer time, p99",
        "Seconds from a request's head to its answer's head, for the slowest in a hundred of this time.",
        f'histogram_quantile(0.99, sum by (le) (increase(gridtokenx_http_request_duration_seconds_bucket{{{JOB}, instance=~"$instance"}}[$__range])))',
        unit="s",
        thresholds=steps(GREEN, (0.5, YELLOW), (2, RED)),
        links=[to("database", "Database")],
    )),
    (6, stat(
        "Readings refused",
        "Share of the readings of this time that were not newly stored: invalid, overlapping, or sent before. The feed notifies the owners why: MeterReadingValidationFailed.",
        f'1 - {in_range("gridtokenx_meter_readings_processed_total")} / {in_range("gridtokenx_meter_readings_received_total")}',
        unit="percentunit",
        decimals=1,
        thresholds=steps(GREEN, (0.2, YELLOW)),
        links=[to("feed", "Feed")],
    )),
)

ANSWERS = row(
    "Requests",
    (12, graph(
        "Answers by class of status",
        "API answers a second; probes and scrapes are left out. 4xx: the client's fault (429: too many). 5xx: ours. 1xx: WebSocket connections that were opened.",
        [(per_second(REQUESTS, by="status"), "{{status}}")],
        unit="suffix: /s",
        stacked=True,
        links=[runbook("HighErrorRate")],
    )),
    (12, graph(
        "Share of failed requests",
        "5xx divided by all. HighErrorRate fires above 5 %.",
        [
            (f'{per_second(REQUESTS, "status=" + chr(34) + "5xx" + chr(34))} / {per_second(REQUESTS)}', "5xx"),
            (f'{per_second(REQUESTS, "status=" + chr(34) + "4xx" + chr(34))} / {per_second(REQUESTS)}', "4xx (clients)"),
        ],
        unit="percentunit",
        thresholds=steps("transparent", (0.05, RED)),
        links=[runbook("HighErrorRate"), runbook("ApiAvailabilityBudgetBurn")],
    )),
    (12, graph(
        "Answer time",
        "Seconds from a request's head to its answer's head. A submission waits for its commit.",
        [
            (quantile(0.5, "gridtokenx_http_request_duration_seconds"), "p50"),
            (quantile(0.95, "gridtokenx_http_request_duration_seconds"), "p95"),
            (quantile(0.99, "gridtokenx_http_request_duration_seconds"), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("database", "Database")],
    )),
    (12, graph(
        "Requests by process",
        "API answers a second of each process: does the load balancer spread them?",
        [(per_second(REQUESTS, by="instance"), "{{instance}}")],
        unit="suffix: /s",
        stacked=True,
        links=[to("database", "Database"), runbook("HighErrorRate"), runbook("InstanceDown")],
    )),
)

READINGS = row(
    "Readings",
    (12, graph(
        "Readings received and accepted",
        "Readings that arrived, and those that were newly stored, a second. Between the two: invalid ones, overlaps and repeats.",
        [
            (per_second("gridtokenx_meter_readings_received_total"), "received"),
            (per_second("gridtokenx_meter_readings_processed_total"), "accepted"),
        ],
        unit="suffix: /s",
        links=[to("queue", "Queue")],
    )),
    (12, graph(
        "Stored after",
        "Seconds from a reading's arrival until it was stored with its job.",
        [
            (quantile(0.5, "gridtokenx_reading_stage_duration_seconds", 'stage="stored"'), "p50"),
            (quantile(0.99, "gridtokenx_reading_stage_duration_seconds", 'stage="stored"'), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("database", "Database")],
    )),
    (12, graph(
        "Readings in a commit",
        "How many readings share one database transaction, and how many refusals are reported together, on average.",
        [(mean("gridtokenx_coalescer_batch_items", 'coalescer=~"intake|refusals"', "coalescer"), "{{coalescer}}")],
        unit="short",
        decimals=1,
        links=[to("database", "Database")],
    )),
)

BOARD = board("api", "API", "HTTP: requests, errors, latency, what is refused.", [SYMPTOM, ANSWERS, READINGS])
