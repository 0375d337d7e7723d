#!/usr/bin/env python3
"""Draws the dashboards with the data of a Prometheus, one picture a board, for those who have no Grafana at hand.

    dashboards/render.py http://127.0.0.1:9090 gridtokenx OUT [--from UNIX] [--to UNIX]

Needs matplotlib. It shows whether each query answers with what its title says, in the unit that it claims, and how the panels
lie; colours and fonts are not Grafana's.
"""

import argparse
import json
import math
import sys
import textwrap
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

FOLDER = Path(__file__).resolve().parent
POINTS = 240
COLUMN_INCHES, LINE_INCHES = 0.85, 0.42
COLOURS = {"green": "#4f9d5d", "yellow": "#d8a530", "red": "#c4453d", "transparent": "#777777"}


def ask(server, path, **parameters):
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)["data"]


def filled_in(expression, options):
    for variable, value in (
        ("$__rate_interval", "10s"),
        ("$__range", f"{round(options.to - options.begin)}s"),
        ("$instance", ".*"),
        ("$job", options.job),
    ):
        expression = expression.replace(variable, value)
    return expression


def scaled(value, steps):
    for limit, divisor, suffix in steps:
        if abs(value) >= limit:
            return f"{value / divisor:.3g} {suffix}"
    return f"{value:.3g}"


def shown(value, unit, decimals=None):
    """A number as Grafana would write it, nearly."""
    if math.isnan(value):
        return "no data"
    if unit == "s":
        return scaled(value, ((86400, 86400, "d"), (3600, 3600, "h"), (60, 60, "min"), (1, 1, "s"), (1e-9, 1e-3, "ms"))) if value else "0 s"
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f} %"
    number = scaled(value, ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))) if decimals is None else f"{value:.{decimals}f}"
    return f"{number} {unit.removeprefix('suffix: ')}" if unit.startswith("suffix: ") else number


def legend(pattern, labels):
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern or ", ".join(labels.values()) or "value"


def colour(value, thresholds):
    chosen = thresholds["steps"][0]["color"]
    for step in thresholds["steps"][1:]:
        if value >= step["value"]:
            chosen = step["color"]
    return COLOURS.get(chosen, chosen)


def draw_stat(axes, panel, options):
    defaults = panel["fieldConfig"]["defaults"]
    result = ask(options.server, "query", query=filled_in(panel["targets"][0]["expr"], options), time=options.to)["result"]
    value = float(result[0]["value"][1]) if result else math.nan
    words = defaults["mappings"][0]["options"] if defaults["mappings"] else {}
    known = words.get(f"{value:g}", {}).get("text")
    axes.set_facecolor("#888888" if math.isnan(value) else colour(value, defaults["thresholds"]))
    axes.text(0.5, 0.5, known or shown(value, defaults["unit"], defaults.get("decimals")), ha="center", va="center", fontsize=15, color="white", transform=axes.transAxes)
    axes.set_xticks([]), axes.set_yticks([])


def draw_table(axes, panel, options):
    result = ask(options.server, "query", query=filled_in(panel["targets"][0]["expr"], options), time=options.to)["result"]
    hidden = panel["transformations"][0]["options"]["excludeByName"]
    lines = ["   ".join(f"{name}={value}" for name, value in series["metric"].items() if name not in hidden) for series in result]
    axes.text(0.02, 0.95, "\n".join(lines) or "no rows", va="top", fontsize=8, family="monospace", transform=axes.transAxes)
    axes.set_xticks([]), axes.set_yticks([])


def draw_graph(axes, panel, options):
    defaults = panel["fieldConfig"]["defaults"]
    step = max(1, (options.to - options.begin) / POINTS)
    drawn = 0
    for target in panel["targets"]:
        answer = ask(options.server, "query_range", query=filled_in(target["expr"], options), start=options.begin, end=options.to, step=step)
        for series in answer["result"]:
            points = [(float(at) - options.begin, float(value)) for at, value in series["values"]]
            points = [(at, value if math.isfinite(value) else math.nan) for at, value in points]
            axes.plot(*zip(*points), linewidth=1, label=legend(target["legendFormat"], series["metric"]))
            drawn += 1
    if not drawn:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
    for limit in defaults["thresholds"]["steps"][1:]:
        axes.axhline(limit["value"], color=COLOURS.get(limit["color"], "red"), linestyle="--", linewidth=0.8)
    if defaults["custom"]["scaleDistribution"]["type"] == "log" and drawn:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(0, options.to - options.begin)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, defaults["unit"], defaults.get("decimals"))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    if drawn:
        axes.legend(fontsize=6, loc="upper left", ncols=2, framealpha=0.6)


def draw_text(axes, panel, options):
    lines = [part for line in panel["options"]["content"].splitlines() for part in (textwrap.wrap(line, 105) or [""])]
    axes.text(0.01, 0.97, "\n".join(lines[:24]), va="top", fontsize=6, transform=axes.transAxes, parse_math=False)
    axes.set_xticks([]), axes.set_yticks([])


DRAW = {"stat": draw_stat, "table": draw_table, "timeseries": draw_graph, "text": draw_text}


def draw(board, options):
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    width, height = 24 * COLUMN_INCHES, (lines + 2) * LINE_INCHES
    figure = pyplot.figure(figsize=(width, height))
    figure.suptitle(board["title"], fontsize=14, y=1 - 0.5 * LINE_INCHES / height)
    for panel in board["panels"]:
        place = panel["gridPos"]
        top = 1 - (place["y"] + 2) * LINE_INCHES / height
        if panel["type"] == "row":
            figure.text(0.01, top - 0.8 * LINE_INCHES / height, panel["title"], fontsize=11, fontweight="bold")
            continue
        left, bottom = place["x"] / 24, top - place["h"] * LINE_INCHES / height
        # Room for the title above and the numbers beside.
        axes = figure.add_axes((left + 0.035, bottom + 0.65 * LINE_INCHES / height, place["w"] / 24 - 0.045, (place["h"] - 1.6) * LINE_INCHES / height))
        axes.set_title(panel["title"], fontsize=8, loc="left", pad=3)
        DRAW[panel["type"]](axes, panel, options)
    file = options.out / f"{board['uid']}.png"
    figure.savefig(file, dpi=70)
    pyplot.close(figure)
    print(file)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("server")
    options.add_argument("job")
    options.add_argument("out", type=Path)
    options.add_argument("--from", dest="begin", type=float, default=time.time() - 3600)
    options.add_argument("--to", type=float, default=time.time())
    options = options.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        draw(json.loads(path.read_text()), options)


if __name__ == "__main__":
    sys.exit(main())
