"""Building blocks of the dashboards: queries, panels, rows, boards.

A board is a list of rows, a row a title and its panels with their widths (24 columns make a line). Numbers and places of
panels follow from their order. Every panel has a unit, a description and a link that leads on: to the board that shows its cause,
to the runbook section of the alert that it belongs to, or to both; `dashboards/check` looks for them.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Variables of every board. A figure from the database is the same on each replica: it is asked of the job, and the chosen
# instances do not change it.
JOB = 'job="$job"'
INSTANCE = 'job="$job", instance=~"$instance"'

GREEN, YELLOW, RED, GREY = "green", "yellow", "red", "#808080"


# --- Queries ---------------------------------------------------------------------------------------------------------


def each(metric, labels=""):
    """What each chosen process reports about itself."""
    return f"{metric}{{{INSTANCE}{labels and ', ' + labels}}}"


def shared(metric, labels="", by=""):
    """A figure from the database: the highest that a process shows which could read it, never a sum."""
    grouped = f" by ({by})" if by else ""
    return (
        f"max{grouped} ({metric}{{{JOB}{labels and ', ' + labels}}}"
        f" and on (job, instance) (gridtokenx_database_figures_stale{{{JOB}}} == 0))"
    )


def per_second(counter, labels="", by=""):
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({each(counter, labels)}[$__rate_interval]))"


def in_range(counter, labels=""):
    """How often within the time that the board shows."""
    return f"sum (increase({each(counter, labels)}[$__range]))"


def quantile(share, histogram, labels="", by=""):
    grouped = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({grouped})"
        f" (rate({each(histogram + '_bucket', labels)}[$__rate_interval])))"
    )


def mean(histogram, labels="", by=""):
    return f"{per_second(histogram + '_sum', labels, by)} / {per_second(histogram + '_count', labels, by)}"


# --- Links -----------------------------------------------------------------------------------------------------------

VARIABLES = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"


def to(board, title):
    """To the board that shows the cause."""
    return {"title": title, "url": f"/d/gridtokenx-{board}?{VARIABLES}", "targetBlank": False}


def runbook(alert):
    """To the section of docs/runbooks.md; `generate.py` turns the name into the number of its panel."""
    return {"title": f"Runbook: {alert}", "url": f"runbook:{alert.lower()}", "targetBlank": False}


def first_steps():
    """To what the runbooks say for every case: for panels that no alert watches."""
    return {"title": "Runbook: first, whatever it is", "url": "runbook:first-whatever-it-is", "targetBlank": False}


# --- Panels ----------------------------------------------------------------------------------------------------------


def steps(*limits):
    """Thresholds: the first colour, then pairs of a value and the colour from there on."""
    colours = [{"color": limits[0], "value": None}]
    colours += [{"color": colour, "value": value} for value, colour in limits[1:]]
    return {"mode": "absolute", "steps": colours}


def _panel(kind, title, description, unit, queries, links, thresholds=None, mappings=None, decimals=None, minimum=None):
    defaults = {"unit": unit, "mappings": mappings or [], "thresholds": thresholds or steps(GREEN)}
    if decimals is not None:
        defaults["decimals"] = decimals
    if minimum is not None:
        defaults["min"] = minimum
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "links": links or [],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
                "range": kind == "timeseries",
                "instant": kind != "timeseries",
            }
            for number, (expression, legend) in enumerate(queries)
        ],
    }


def words(**texts):
    """Value mappings: `_0="closed"` shows the word for the value."""
    options = {value.lstrip("_"): {"text": text, "index": index} for index, (value, text) in enumerate(texts.items())}
    return [{"type": "value", "options": options}]


def not_known(word="not known"):
    """A word for a figure that no process has seen yet: NaN, and nothing to be alarmed by."""
    return [{"type": "special", "options": {"match": "null+nan", "result": {"text": word, "color": GREY, "index": 0}}}]


def stat(title, description, query, unit="none", thresholds=None, mappings=None, links=None, decimals=None, height=4):
    """One figure of this moment, on a coloured ground."""
    panel = _panel("stat", title, description, unit, [(query, "")], links, thresholds, mappings, decimals)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "thresholds"}
    panel["fieldConfig"]["defaults"]["noValue"] = "no data"
    panel["options"] = {
        "colorMode": "background",
        "graphMode": "none",
        "justifyMode": "center",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    panel["height"] = height
    return panel


def graph(title, description, queries, unit="none", links=None, thresholds=None, stacked=False, logarithmic=False, decimals=None):
    """Curves over time; a threshold is drawn as a line."""
    panel = _panel("timeseries", title, description, unit, queries, links, thresholds, None, decimals, None if logarithmic else 0)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "palette-classic"}
    panel["fieldConfig"]["defaults"]["custom"] = {
        "drawStyle": "line",
        "fillOpacity": 25 if stacked else 8,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 4,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    panel["options"] = {
        "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    panel["height"] = 8
    return panel


def table(title, description, query, unit="none", links=None, hide=()):
    """One line for each series, its labels as columns."""
    panel = _panel("table", title, description, unit, [(query, "")], links)
    panel["targets"][0]["format"] = "table"
    panel["options"] = {"showHeader": True, "cellHeight": "sm"}
    panel["transformations"] = [
        {"id": "organize", "options": {"excludeByName": {name: True for name in ("Time", *hide)}, "indexByName": {}, "renameByName": {}}}
    ]
    panel["height"] = 6
    return panel


def text(title, content, description):
    return {
        "type": "text",
        "title": title,
        "description": description,
        "links": [],
        "options": {"mode": "markdown", "content": content},
        "height": 10,
    }


# --- Boards ----------------------------------------------------------------------------------------------------------


def row(title, *panels):
    """Panels are pairs of a width and a panel."""
    return {"title": title, "panels": panels}


def _variable(name, label, query, multi):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": multi,
        "allValue": ".*" if multi else None,
        "current": {"text": ["All"], "value": ["$__all"]} if multi else {},
        "hide": 0,
        "options": [],
        "regex": "",
        "skipUrlSync": False,
    }


def _variables():
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }
    return [
        source,
        _variable("job", "Job", "label_values(gridtokenx_build_info, job)", False),
        _variable("instance", "Instance", 'label_values(gridtokenx_build_info{job="$job"}, instance)', True),
    ]


def _placed(rows):
    """Gives panels their places, line by line, and their numbers; one that brings its own keeps it."""
    panels, number, top = [], 1, 0
    for part in rows:
        panels.append(
            {"id": number, "type": "row", "title": part["title"], "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": 24, "x": 0, "y": top}}
        )
        number, top, left, tallest = number + 1, top + 1, 0, 0
        for width, panel in part["panels"]:
            panel = dict(panel)
            height = panel.pop("height")
            if left + width > 24:
                top, left, tallest = top + tallest, 0, 0
            panels.append({"id": number, **panel, "gridPos": {"h": height, "w": width, "x": left, "y": top}})
            number, left, tallest = number + 1, left + width, max(tallest, height)
        top += tallest
    return panels


def board(name, title, description, rows, time_from="now-1h"):
    return {
        "uid": f"gridtokenx-{name}",
        "title": f"GridTokenX / {title}",
        "description": description,
        "tags": ["gridtokenx"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": time_from, "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "title": "GridTokenX",
                "type": "dashboards",
                "tags": ["gridtokenx"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "dashboard",
                "tooltip": "",
                "url": "",
            }
        ],
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "expr": 'ALERTS{service="gridtokenx", job="$job", alertstate="firing"}',
                    "iconColor": "red",
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{severity}}",
                    "step": "60s",
                }
            ]
        },
        "templating": {"list": _variables()},
        "panels": _placed(rows),
    }
