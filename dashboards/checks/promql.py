"""The checks' knowledge of PromQL, Grafana's variables and the rule files, without their own parser."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
RULES = FOLDER / "prometheus"

# Durations of the real rules are divided by this for the live check; those from a quarter of an hour on by more.
HASTE, HASTE_OF_LONG = 60, 180
LONG_SECS = 900

DURATION = re.compile(r"\b(\d+)(ms|s|m|h|d)\b")
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

# An alert's own limits in seconds that no fault can reach within minutes. Other limits are left as they are.
SHORTER_LIMITS = {
    "time() - gridtokenx_process_start_time_seconds < 600": "time() - gridtokenx_process_start_time_seconds < 10",
    "time() - (gridtokenx:sweep_last_finished_timestamp_seconds:max > 0) > 180": "time() - (gridtokenx:sweep_last_finished_timestamp_seconds:max > 0) > 10",
}


def dashboards():
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]


def targets(board):
    """Title of the panel and expression, of every query of a board."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def filled_in(expression, job, seconds, interval="10s"):
    """The expression with Grafana's variables replaced."""
    for variable, value in (
        ("$__rate_interval", interval),
        ("$__range", f"{seconds}s"),
        ("$__interval", interval),
        ("$instance", ".*"),
        ("$job", job),
    ):
        expression = expression.replace(variable, value)
    return expression


def selectors(expression):
    """Every series that an expression asks for, as a separate query."""
    without_strings = re.sub(r'"[^"]*"', lambda found: found.group().replace("{", "(").replace("}", ")"), expression)
    names = re.finditer(r"\b(gridtokenx[a-z0-9_:]+|ALERTS|up)(\{[^}]*\})?", without_strings)
    return sorted({found.group() for found in names})


def rules():
    """The rules of all files as Prometheus reads them: `promtool` has no way to print them, so a running one is asked
    (see live.py). Here: name and file of each, for the texts of the checks."""
    found = []
    for path in sorted(RULES.glob("*.yml")):
        if path.name.endswith("_test.yml"):
            continue
        for kind, name in re.findall(r"^\s+- (alert|record): (\S+)$", path.read_text(), re.MULTILINE):
            found.append((kind, name, path.name))
    return found


def hastened(text):
    """A rule file with every duration made shorter: `for:`, ranges and offsets."""

    def shorter(found):
        seconds = int(found.group(1)) * UNITS[found.group(2)]
        seconds /= HASTE_OF_LONG if seconds >= LONG_SECS else HASTE
        return f"{max(1, round(seconds * 1000))}ms"

    lines = []
    for line in text.splitlines():
        for slow, fast in SHORTER_LIMITS.items():
            line = line.replace(slow, fast)
        stripped = line.strip()
        if stripped.startswith("for:"):
            line = DURATION.sub(shorter, line)
        elif not stripped.startswith(("#", "summary:", "- record:", "- alert:", "- name:")):
            line = re.sub(r"\[[0-9smhd]+\]|offset [0-9smhd]+", lambda found: DURATION.sub(shorter, found.group()), line)
        lines.append(line)
    return "\n".join(lines) + "\n"
