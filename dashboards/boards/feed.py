"""The event feed: is it on time, who listens, who is cut off."""

from .panels import GREEN, INSTANCE, JOB, RED, YELLOW, board, each, graph, in_range, per_second, quantile, row, runbook, shared, stat, steps, to

DELIVERY = "gridtokenx_feed_delivery_seconds"

SYMPTOM = row(
    "Are listeners notified in time?",
    (6, stat(
        "Delivery, p99",
        "Seconds from the writing of an event until a process handed it to its listeners, for the slowest in a hundred of this time.",
        f"histogram_quantile(0.99, sum by (le) (increase({each(DELIVERY + '_bucket')}[$__range])))",
        unit="s",
        thresholds=steps(GREEN, (2, YELLOW), (10, RED)),
        links=[to("database", "Database")],
    )),
    (6, stat(
        "Oldest event without number",
        "Age of the oldest event that the sequencer has not numbered. Seconds mean that no process holds the sequencer, or that a writer's transaction hangs.",
        shared("gridtokenx_outbox_oldest_event_age_seconds"),
        unit="s",
        thresholds=steps(GREEN, (10, YELLOW), (60, RED)),
        links=[to("database", "Database")],
    )),
    (4, stat(
        "Newest event",
        "Number of the newest event (from the database).",
        shared("gridtokenx_feed_last_seq"),
        unit="none",
        links=[to("database", "Database"), to("queue", "Queue")],
    )),
    (4, stat(
        "Open connections",
        "WebSocket connections that are open in the chosen processes. A process takes WEBSOCKET_MAX_CONNECTIONS.",
        f"sum ({each('gridtokenx_websocket_connections_active')})",
        unit="short",
        links=[runbook("WebSocketConnectionIssues")],
    )),
    (4, stat(
        "Ended by an error",
        "Connections of this time that ended by an error or a client's fault: no valid token, too slow, too many messages, silence.",
        in_range("gridtokenx_websocket_errors_total"),
        unit="short",
        decimals=0,
        thresholds=steps(GREEN, (1, YELLOW)),
        links=[runbook("WebSocketConnectionIssues")],
    )),
)

EVENTS = row(
    "Events",
    (12, graph(
        "Delivery",
        "Seconds from the writing of an event until a process handed it to its listeners. The pace that a single client is held to comes on top.",
        [(quantile(0.5, DELIVERY), "p50"), (quantile(0.99, DELIVERY), "p99")],
        unit="s",
        logarithmic=True,
        links=[to("database", "Database")],
    )),
    (12, graph(
        "Events a second",
        "How fast the number of the newest event rises (from the database), and what each process handed out.",
        [
            (f"max (deriv(gridtokenx_feed_last_seq{{{JOB}}}[$__rate_interval]))", "numbered"),
            (per_second(DELIVERY + "_count", by="instance"), "handed out by {{instance}}"),
        ],
        unit="suffix: /s",
        links=[to("queue", "Queue"), to("database", "Database")],
    )),
    (12, graph(
        "Notification of a reading, time after acceptance",
        "Seconds from a reading's acceptance until its mint was handed to the listeners.",
        [
            (quantile(0.5, "gridtokenx_reading_stage_duration_seconds", 'stage="delivered"'), "p50"),
            (quantile(0.99, "gridtokenx_reading_stage_duration_seconds", 'stage="delivered"'), "p99"),
        ],
        unit="s",
        logarithmic=True,
        links=[to("queue", "Queue")],
    )),
    (12, graph(
        "Events that wait for a number",
        "Age of the oldest event in the outbox.",
        [(shared("gridtokenx_outbox_oldest_event_age_seconds"), "oldest")],
        unit="s",
        links=[to("database", "Database")],
    )),
)

LOG = row(
    "Event log",
    (12, graph(
        "Oldest event that is kept",
        "Its age. It stays near FEED_RETENTION_DAYS once the feed is that old, plus three per cent, or what a busy partition holds; what rises on is not dropped.",
        [(shared("gridtokenx_feed_oldest_event_age_seconds"), "oldest")],
        unit="s",
        links=[to("database", "Database")],
    )),
    (12, graph(
        "Events kept",
        "Numbers from the oldest that is kept to the newest (from the database).",
        [(f'{shared("gridtokenx_feed_last_seq")} - {shared("gridtokenx_feed_oldest_seq")} + 1', "events")],
        unit="short",
        links=[to("database", "Database")],
    )),
    (12, graph(
        "Partitions",
        "Of the event log, those that stand ready included: some thirty on a quiet feed, some hundreds on one of a thousand events a second. And those that were dropped for age within an hour.",
        [
            (shared("gridtokenx_feed_partitions"), "there"),
            (f'sum (increase({each("gridtokenx_feed_partitions_dropped_total")}[1h]))', "dropped"),
        ],
        unit="short",
        decimals=0,
        links=[to("database", "Database")],
    )),
)

CLIENTS = row(
    "Listeners",
    (12, graph(
        "Open connections, by process",
        "WebSocket connections that are open now. A process that loses all at once was restarted; clients come back by themselves and resume.",
        [(each("gridtokenx_websocket_connections_active"), "{{instance}}")],
        unit="short",
        stacked=True,
        links=[runbook("WebSocketConnectionIssues")],
    )),
    (12, graph(
        "Streams of server-sent events",
        "That are open now, by process, and opened a second. They share WEBSOCKET_MAX_CONNECTIONS with the WebSocket connections.",
        [
            (each("gridtokenx_sse_streams_active"), "open, {{instance}}"),
            (per_second("gridtokenx_sse_streams_total"), "opened a second"),
        ],
        unit="short",
        links=[runbook("WebSocketConnectionIssues")],
    )),
    (12, graph(
        "Why connections end",
        "WebSocket connections that ended, a second, by reason. gone, left, going_away and token_expired are normal; check too_slow and log_unavailable.",
        [(per_second("gridtokenx_websocket_closes_total", by="reason"), "{{reason}}")],
        unit="suffix: /s",
        stacked=True,
        links=[runbook("WebSocketConnectionIssues")],
    )),
    (12, graph(
        "Refused, and behind",
        "Streams refused a second because WEBSOCKET_MAX_CONNECTIONS were open, and times a second that WEBSOCKET_EVENT_BUFFER_SIZE events waited for one listener, which reads the log from there on.",
        [
            (per_second("gridtokenx_feed_streams_refused_total"), "refused"),
            (per_second("gridtokenx_feed_overflows_total"), "behind"),
        ],
        unit="suffix: /s",
        links=[to("api", "API"), runbook("WebSocketConnectionIssues")],
    )),
    (12, graph(
        "Opened, and ended by an error",
        "Connections a second. Errors near the number of opened ones: clients come back again and again and are refused.",
        [
            (per_second("gridtokenx_websocket_connections_total"), "opened"),
            (per_second("gridtokenx_websocket_errors_total"), "ended by an error"),
        ],
        unit="suffix: /s",
        links=[runbook("WebSocketConnectionIssues")],
    )),
    (12, graph(
        "Share that ends by an error",
        "Connections that ended by an error within 10 minutes, divided by those that were open or opened. The alert fires above 20 %.",
        [
            (
                f"sum (increase(gridtokenx_websocket_errors_total{{{INSTANCE}}}[10m])) / (sum (increase(gridtokenx_websocket_connections_total{{{INSTANCE}}}[10m])) + sum (gridtokenx_websocket_connections_active{{{INSTANCE}}}))",
                "errors",
            )
        ],
        unit="percentunit",
        thresholds=steps("transparent", (0.2, RED)),
        links=[runbook("WebSocketConnectionIssues")],
    )),
)

BOARD = board("feed", "Feed", "The event feed: is it on time, who listens, who is cut off.", [SYMPTOM, EVENTS, LOG, CLIENTS])
